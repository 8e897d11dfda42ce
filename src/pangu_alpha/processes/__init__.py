"""Processes of this machine: stop signals, the processes that belong to a launcher, host memory, processors
that may be used, and pools of workers."""

__all__ = ["belonging", "cores", "host_memory", "signals", "workers"]
