"""The operator: observes, forecasts, plans and actuates a DiffusionService."""
