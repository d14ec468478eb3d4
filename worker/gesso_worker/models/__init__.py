"""Models that a worker can hold: the tiny SD-XL that ships with Gesso, and SD-XL itself."""
