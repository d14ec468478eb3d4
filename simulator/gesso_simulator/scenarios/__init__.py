"""Named scenarios: what load meets what fleet, and what happens to it. Seeded and reproducible."""
