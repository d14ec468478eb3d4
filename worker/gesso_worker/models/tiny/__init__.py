"""The tiny SD-XL: its scene grammar, its training recipe, its quality checker."""
