"""Every metric that a part of Gesso exposes to Prometheus, declared once."""
