"""What a run has shown: figures, tables, plots."""
