"""The parameters of a network as data: one table that all other packages read. No MindSpore."""

__all__ = ["parameters", "rows"]
