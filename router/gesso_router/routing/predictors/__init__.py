"""Quality predictors: by published thresholds, by a measured table, learned."""
