"""The name that parts know each other by, apart from what it takes to check it."""

#: What the certificates of parts are made out to, unless the service says otherwise.
SERVER_NAME = "gesso.internal"
