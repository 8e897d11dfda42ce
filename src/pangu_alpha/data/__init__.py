"""From token files to training batches: windows, records and their manifest, order, and batches."""

__all__ = ["batches", "hashing", "manifest", "position", "preprocess", "windows"]
