"""The router's decisions, pure: no clock, network, asyncio or metrics."""
