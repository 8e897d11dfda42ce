"""What a run does every so many steps, and the hooks of every run."""

__all__ = ["hook", "standard"]
