"""Discrete events on a virtual clock: the live planner and routing against simulated workers."""
