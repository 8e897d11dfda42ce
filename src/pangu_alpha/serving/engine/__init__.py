"""The engine's process: it alone has the network, and speaks JSON lines with the front. Texts stay in the front."""

__all__ = ["channel", "loaded", "memory", "process", "protocol", "settings", "worker"]
