"""HCCL rank tables: read, checked, built, merged and written."""

__all__ = ["build", "check", "other_forms", "problem", "rank_table"]
