"""`corpus.py list-rules`: every rule with its bound in each profile, and who set it."""

from __future__ import annotations

import argparse
from typing import Any

from pangu_alpha.corpus.rules import list_rules


def add_list_rules(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "list-rules",
        help="print the table of rules",
        description="Prints every rule: what it measures, its bound in each profile, and who set the bound.",
    )
    parser.set_defaults(call=run)


def run(_: argparse.Namespace) -> int:
    """Prints the table; returns the exit code."""
    print(list_rules(), end="")
    return 0
