"""What a DiffusionService needs in its namespace, as manifests; pure."""

from gesso_operator.cluster.objects.desired import Defaults, desired

__all__ = ["Defaults", "desired"]
