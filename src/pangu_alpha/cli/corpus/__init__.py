"""The command that builds a corpus, explains it, and mixes it."""

from pangu_alpha.cli.corpus.command import main

__all__ = ["main"]
