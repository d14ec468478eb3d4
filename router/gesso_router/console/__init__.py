"""The console: a page that shows what the fleet does and why, and lets a visitor try it."""
