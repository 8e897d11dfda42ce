"""Other programs' checkpoints, read without those programs."""

__all__ = ["mindspore", "torch"]
