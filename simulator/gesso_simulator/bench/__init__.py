"""`gesso bench`: an open-loop load on a service that is up, and how it fared."""
