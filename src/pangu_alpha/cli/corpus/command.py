"""Command line of corpus.py: its subcommands, each in a module of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pangu_alpha.cli.corpus import asking, compare, demo, running
from pangu_alpha.cli.parser import Parser

_EXAMPLE = """\
example:
  python src/corpus.py run --config corpus.yaml --engine local
  python src/preprocess.py --input 'corpus/*/part-*.parquet' --no-clean ...

An interrupted run is continued by the same command, also on the other engine.
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="corpus.py",
        description="From raw pages to clean text: the same bytes on a laptop and on a Spark cluster.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    running.add_run(commands)
    asking.add_asking(commands)
    demo.add_demo(commands)
    compare.add_parser(commands).set_defaults(call=compare.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs corpus.py; raises ValueError for what the user can fix."""
    options = _parser().parse_args(arguments)
    code: int = options.call(options)
    return code


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
