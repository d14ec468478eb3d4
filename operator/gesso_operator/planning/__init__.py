"""The planner's decisions, pure: no clock, network, asyncio, Kubernetes or metrics."""
