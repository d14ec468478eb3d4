"""Readers of the files that a user brings: traces, prompt logs, quality tables, profiles."""
