"""The HTTP side of the server: routes, streams, health, metrics and its end. Needs the extra serve."""

__all__ = ["app", "server", "state"]
