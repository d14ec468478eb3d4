"""Evaluation of the tiny SD-XL: its floors, its quality over skipped steps, contact sheets, the model card."""
