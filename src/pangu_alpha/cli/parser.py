"""The argument parser of all command lines."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from pangu_alpha.files.shown import quoted, shown


class Parser(argparse.ArgumentParser):
    """A parser of command lines whose words may stand before, between and after the options.

    argparse's own parser refuses `train.py run.steps=2 --config c.yaml run.log_every=1`. Options cannot be
    abbreviated, because a new option would change the meaning of an abbreviation. If an option is given
    twice, the last value holds, and a note says so. Parsers of subcommands are of this class too. Further
    arguments are those of argparse.ArgumentParser.

    Args:
        prog: Name of the command.
        epilog: End of the help.
    """

    called_as: str | None = None  # what the user typed instead of the program's own name

    def __init__(self, prog: str | None = None, epilog: str | None = None, **settings: Any) -> None:
        typed = self.called_as
        if prog and typed and not prog.startswith(f"{typed} "):  # a subcommand's name already begins with it
            epilog, prog = epilog and epilog.replace(prog, typed), typed
        super().__init__(prog, epilog=epilog, **{"allow_abbrev": False, **settings})
        for name in (None, "store"):
            self.register("action", name, _Store)
        self._splitting = False
        self._given: dict[str, Any] = {}  # values stored so far from the line that is being parsed

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like argparse's method, but suggests a similar option for an unknown one."""
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            known = list(_options(self, options))
            self.error(f"unrecognized arguments: {' '.join(rest)}{_nearest(rest, known)}")
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like argparse's method, for words between the options as well."""
        words = self._get_positional_actions()
        whole = any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in words)
        if self._splitting:
            return super().parse_known_args(args, namespace)
        self._given = {}
        if whole or not words:
            return super().parse_known_args(args, namespace)
        self._splitting = True  # the method below calls this one twice, for options and for words
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._splitting = False

    def error(self, message: str) -> NoReturn:
        """Like argparse's method, but escapes control characters."""
        super().error(shown(message, 2000))


class _Store(argparse._StoreAction):
    """Stores a value, and prints a note if that replaces an earlier one from the same line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if option_string is not None:
            if parser._given.setdefault(self.dest, values) != values:
                before = quoted(parser._given[self.dest])
                print(f"note: {option_string} is given twice, {before} does not count", file=sys.stderr)
            parser._given[self.dest] = values
        super().__call__(parser, namespace, values, option_string)


def _options(parser: argparse.ArgumentParser, line: argparse.Namespace) -> Iterator[str]:
    """Yields all options of a parser and of the subcommand that a line names."""
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            named = getattr(line, action.dest, None)  # None if the parser does not store the command's name
            for name, inner in action.choices.items():
                yield from _options(inner, line) if named in (None, name) else ()


def _nearest(rest: list[str], known: list[str]) -> str:
    """The end of an error message: the option that a line's first unknown one may mean."""
    word = next((word.partition("=")[0] for word in rest if word.startswith("--")), "")
    longer = [option for option in known if len(word) > 2 and option.startswith(word)]
    near = longer[:1] or difflib.get_close_matches(word[:80], known, 1)
    return f"; did you mean {near[0]}?" if near else ""
