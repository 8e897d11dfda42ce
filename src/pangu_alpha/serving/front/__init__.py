"""The HTTP side of the server: routes, streams, health, metrics and the end of it all. Needs the extra serve."""

__all__ = ["app", "server", "state"]
