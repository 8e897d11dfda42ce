"""The parser of all command lines."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from pangu_alpha.files.shown import quoted, shown


class Parser(argparse.ArgumentParser):
    """A parser of command lines whose words may stand before, between and behind the options.

    argparse's own refuses `train.py run.steps=2 --config c.yaml run.log_every=1`. Options are written out:
    an abbreviation means another option, or none, as soon as there is a new one. Of an option that is given
    twice the last one holds, and a note says so. The parsers of subcommands are of this class, too. Further
    arguments are argparse.ArgumentParser's.

    Args:
        prog: Name of the command.
        epilog: What the help ends with.
    """

    called_as: str | None = None  # what was typed instead of the program's own name

    def __init__(self, prog: str | None = None, epilog: str | None = None, **settings: Any) -> None:
        typed = self.called_as
        if prog and typed and not prog.startswith(f"{typed} "):  # a subcommand's begins with it already
            epilog, prog = epilog and epilog.replace(prog, typed), typed
        super().__init__(prog, epilog=epilog, **{"allow_abbrev": False, **settings})
        for name in (None, "store"):
            self.register("action", name, _Store)
        self._splitting = False
        self._given: dict[str, Any] = {}  # by the actions of this class, in the line that is being parsed

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with the nearest option where one is unknown."""
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            known = list(_options(self, options))
            self.error(f"unrecognized arguments: {' '.join(rest)}{_nearest(rest, known)}")
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's."""
        words = self._get_positional_actions()
        whole = any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in words)
        if self._splitting:
            return super().parse_known_args(args, namespace)
        self._given = {}
        if whole or not words:
            return super().parse_known_args(args, namespace)
        self._splitting = True  # the method below calls this one, once for options and once for words
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._splitting = False

    def error(self, message: str) -> NoReturn:
        """As argparse's, with control characters escaped."""
        super().error(shown(message, 2000))


class _Store(argparse._StoreAction):
    """Keeps a value, and says when an earlier one of the same line is lost by that."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if option_string is not None:
            if parser._given.setdefault(self.dest, values) != values:
                before = quoted(parser._given[self.dest])
                print(f"note: {option_string} is given twice, {before} does not count", file=sys.stderr)
            parser._given[self.dest] = values
        super().__call__(parser, namespace, values, option_string)


def _options(parser: argparse.ArgumentParser, line: argparse.Namespace) -> Iterator[str]:
    """All options of a parser and of the subcommand that a line names."""
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            named = getattr(line, action.dest, None)  # None where the command is not kept
            for name, inner in action.choices.items():
                yield from _options(inner, line) if named in (None, name) else ()


def _nearest(rest: list[str], known: list[str]) -> str:
    """The option that the first unknown one of a line may mean, as the tail of an error message."""
    word = next((word.partition("=")[0] for word in rest if word.startswith("--")), "")
    longer = [option for option in known if len(word) > 2 and option.startswith(word)]
    near = longer[:1] or difflib.get_close_matches(word[:80], known, 1)
    return f"; did you mean {near[0]}?" if near else ""
