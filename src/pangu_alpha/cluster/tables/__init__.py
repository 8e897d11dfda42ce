"""HCCL rank tables: built, read, checked, merged and written."""

__all__ = ["build", "check", "other_forms", "problem", "rank_table"]
