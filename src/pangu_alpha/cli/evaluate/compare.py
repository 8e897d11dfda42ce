"""`evaluate.py compare`: two models on the same items."""

from __future__ import annotations

import argparse

from pangu_alpha.cli.options import user_path


def run(options: argparse.Namespace) -> int:
    """Prints the comparison; raises ValueError where the two cannot be compared."""
    from pangu_alpha.evaluation.results.compare import compare_results, format_comparison

    found = compare_results(options.first, options.second)
    print(format_comparison(found, str(options.first), str(options.second)))
    return 0


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        "compare",
        help="compare two models on the same items",
        description="Compares the results of two models item by item, with exact tests.",
    )
    for name, metavar in (("first", "A"), ("second", "B")):
        parser.add_argument(name, type=user_path, metavar=metavar, help="folder of results, or results file; "
            "those of lm-evaluation-harness, too")  # fmt: skip


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.evaluate compare")
