"""The learned quality predictor of the tiny SD-XL: training, and what its choices are worth."""
