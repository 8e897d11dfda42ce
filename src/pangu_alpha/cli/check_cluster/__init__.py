"""The command that checks, measures and calibrates a cluster."""

from pangu_alpha.cli.check_cluster.command import main

__all__ = ["main"]
