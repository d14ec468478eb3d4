"""The simulator and the demo: workloads, replays and reports."""
