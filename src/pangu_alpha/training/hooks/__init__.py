"""What a run does every so many steps: the interface of hooks, and the hooks of every run."""

__all__ = ["hook", "standard"]
