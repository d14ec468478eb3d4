"""The demo: the tiny service under a swinging load, for real, beside the same load served at K = 0 only."""
