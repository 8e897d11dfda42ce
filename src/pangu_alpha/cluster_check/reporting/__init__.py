"""What people get to see of the results: the report, its pictures, and what differs between two reports."""

__all__ = ["anonymous", "compare", "pictures", "report"]
