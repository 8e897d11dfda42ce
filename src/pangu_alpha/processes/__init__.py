"""Processes of this machine: stop signals, the processes that belong to a launcher, and host memory."""

__all__ = ["belonging", "host_memory", "signals"]
