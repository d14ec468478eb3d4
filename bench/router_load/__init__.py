"""The parts of bench_router, each a process of its own."""
