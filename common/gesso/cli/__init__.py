"""The command `gesso`."""
