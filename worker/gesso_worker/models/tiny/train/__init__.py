"""Training of the tiny SD-XL from nothing: one module a stage, each resumable from its checkpoint."""
