"""The DiffusionService API: the typed model that the CRD is generated from."""
