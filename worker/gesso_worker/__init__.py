"""The Gesso worker: one diffusion model in memory and its shard of the approximate cache."""
