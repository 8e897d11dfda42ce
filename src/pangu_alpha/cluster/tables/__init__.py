"""HCCL rank tables: read, checked, built, merged and written."""
