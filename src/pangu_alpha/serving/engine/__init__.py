"""The engine's process: it alone has the network. It speaks JSON lines with the front, and knows no texts."""

__all__ = ["channel", "loaded", "memory", "process", "protocol", "settings", "worker"]
