"""From raw pages to clean documents: what is kept, what is dropped, and why. No MindSpore."""

__all__ = [
    "demo",
    "duplicates",
    "engine",
    "folding",
    "hashing",
    "quality",
    "reading",
    "report",
    "rules",
    "stages",
]
