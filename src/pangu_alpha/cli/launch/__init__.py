"""The command that launches training or prediction on the devices of a node."""

from pangu_alpha.cli.launch.command import main

__all__ = ["attempts", "main", "options"]
