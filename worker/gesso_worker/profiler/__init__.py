"""Measures a service's models on this device, for `gesso profile`."""
