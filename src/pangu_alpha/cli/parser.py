"""The parser of all command lines."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from pangu_alpha.files.shown import shown


class Parser(argparse.ArgumentParser):
    """A parser of command lines whose words may stand before, between and behind the options.

    argparse's own refuses `train.py run.steps=2 --config c.yaml run.log_every=1`. The parsers of
    subcommands are of this class, too. Further arguments are argparse.ArgumentParser's.

    Args:
        prog: Name of the command.
        epilog: What the help ends with.
    """

    called_as: str | None = None  # what was typed instead of the program's own name

    def __init__(self, prog: str | None = None, epilog: str | None = None, **settings: Any) -> None:
        if prog is not None and self.called_as is not None:
            epilog, prog = epilog and epilog.replace(prog, self.called_as), self.called_as
        super().__init__(prog, epilog=epilog, **settings)
        self._splitting = False

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's."""
        words = self._get_positional_actions()
        whole = any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in words)
        if self._splitting or whole or not words:
            return super().parse_known_args(args, namespace)
        self._splitting = True  # the method below calls this one, once for options and once for words
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._splitting = False

    def error(self, message: str) -> NoReturn:
        """As argparse's, with control characters escaped."""
        super().error(shown(message, 2000))
