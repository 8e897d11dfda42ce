"""From token files to training batches: packing, records and their manifest, order, batches."""

__all__ = ["batches", "hashing", "manifest", "position", "preprocess", "windows", "workers"]
