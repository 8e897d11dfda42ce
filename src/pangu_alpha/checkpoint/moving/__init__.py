"""Copies tensors from any source to any target in bounded memory, and resumes after a kill."""

__all__ = ["cleaning", "compare", "copying", "export", "reading", "reshard"]
