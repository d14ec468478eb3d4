"""SD-XL's own architecture with random weights: what takes time does not depend on what was learned."""
