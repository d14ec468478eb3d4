"""Workloads: when requests arrive, and what they ask for. Pure and seeded."""
