"""A step that MindSpore splits over Ascend devices by a plan."""

__all__ = ["engine", "step"]
