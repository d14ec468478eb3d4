"""Gesso on Kubernetes: watches DiffusionServices, owns what they need, and runs one control loop for each."""
