"""What breaks and what it costs: the parts of bench_chaos."""
