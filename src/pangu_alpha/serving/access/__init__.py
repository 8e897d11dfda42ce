"""Who may use the server, and how much of it: keys, their limits a minute, and the queue. Knows no HTTP."""

__all__ = ["admission", "buckets", "keys"]
