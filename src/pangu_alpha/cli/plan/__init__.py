"""The command plan.py."""

from pangu_alpha.cli.plan.command import main

__all__ = ["main"]
