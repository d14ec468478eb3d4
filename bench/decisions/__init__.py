"""The parts of the decisions bench: cases, one task's work, what must hold, tables."""
