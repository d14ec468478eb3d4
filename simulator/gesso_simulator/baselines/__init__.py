"""What a user would otherwise run and what no DiffusionService asks for: Kubernetes' own autoscaler."""
