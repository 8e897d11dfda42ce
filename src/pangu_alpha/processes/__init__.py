"""This machine's processes: signals, which processes belong to a launcher, the memory of the host."""

__all__ = ["belonging", "host_memory", "signals"]
