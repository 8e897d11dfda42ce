"""The command evaluate.py."""

from pangu_alpha.cli.evaluate.command import main

__all__ = ["command", "main", "tasks"]
