"""The rows of `bench_cache.py`."""
