"""What a network's parameters are, as data: one table that every other package reads. No MindSpore."""

__all__ = ["parameters", "rows"]
