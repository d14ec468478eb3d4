"""The router: sends each prompt to the level that costs it least quality, in time."""

import os

# gRPC's core writes unstructured lines of its own, which tell nothing that the statuses do not. It
# reads this once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
