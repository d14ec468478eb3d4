"""Why a worker process does not start."""


class StartError(Exception):
    """The worker cannot start; the message is one line."""
