"""Processes of this machine: stop signals, the processes that belong to a launcher, host memory, and pools of
workers."""

__all__ = ["belonging", "host_memory", "signals", "workers"]
