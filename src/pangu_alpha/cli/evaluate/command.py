"""Command line of evaluate.py: tasks, their list, two models compared, overlap with training, perplexity."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pangu_alpha.cli.evaluate import compare, contamination, listing, perplexity, tasks
from pangu_alpha.cli.parser import Parser

_EPILOG = """\
examples:
  evaluate.py list --data eval
  evaluate.py tasks --checkpoint runs/mine --data eval --tasks tnews,ocnli --shots 0,1,K --output results
  evaluate.py compare results_of_a results_of_b
  evaluate.py contamination --records data/train --data eval --tasks all
  evaluate.py perplexity --checkpoint runs/mine --records data/validation --train-records data/train

docs/evaluation.md says more
"""
_COMMANDS = {
    "tasks": tasks,
    "list": listing,
    "compare": compare,
    "contamination": contamination,
    "perplexity": perplexity,
}


def main(arguments: Sequence[str]) -> int:
    """Runs evaluate.py; raises ValueError for what the user can fix.

    Returns:
        Exit code of the command.
    """
    if arguments and arguments[0] in ("--checkpoint", "--records", "--train-records"):
        raise ValueError(
            f"{arguments[0]}: name the command first: `evaluate.py perplexity {arguments[0]} ...` compares "
            f"with baselines, `evaluate.py tasks {arguments[0]} ...` evaluates tasks"
        )
    options = parse(arguments)
    return _COMMANDS[options.command].run(options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options of a command line."""
    return _parser().parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="evaluate.py",
        description="How good a trained PanGu-alpha is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _COMMANDS.values():
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
