"""`corpus.py compare`: which of two corpora networks learn more from."""

from __future__ import annotations

import argparse
import logging

from pangu_alpha.cli.options import Differs, add_options, given_fields, path_text
from pangu_alpha.config.run import RunConfig
from pangu_alpha.evaluation.corpora.comparison import comparison_text
from pangu_alpha.evaluation.corpora.settings import CorporaConfig
from pangu_alpha.files.shown import log_to_stderr, shown
from pangu_alpha.text.documents.inputs import find_inputs

_EPILOG = """\
example:
  corpus.py compare raw.jsonl 'corpus/*/part-*.parquet' --dev held_out.jsonl --output runs/compare

Trains the same small networks on both for equally many tokens, and scores all of them on the development set,
from which lines that either corpus has are removed first. Run again, it continues where it was.

exit code: 0 done; 2 wrong input; 128 + n after signal n
"""


def run(options: argparse.Namespace) -> int:
    """Compares two corpora.

    Returns:
        Exit code: 0, or that of a training that a signal stopped.
    """
    log_to_stderr()
    files = [find_inputs([word]).files for word in (options.first, options.second)]
    development = find_inputs(options.dev).files
    logging.info("starting MindSpore")

    from pangu_alpha.evaluation.corpora.networks import compare_corpora
    from pangu_alpha.parallel.context import use_device

    config = CorporaConfig(
        variants=dict(zip(("A", "B"), files, strict=True)),
        development=development,
        **given_fields(options, CorporaConfig),
    )
    found = compare_corpora(config, use_device(options.device))
    if isinstance(found, int):
        return found
    print(f"A is {shown(options.first)}, B is {shown(options.second)}")
    print(comparison_text(found))
    return 0


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the command, and returns its parser."""
    parser = commands.add_parser(
        "compare",
        help="compare two corpora by what small networks learn from them",
        description="Which of two corpora networks learn more from.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("first", metavar="A", type=path_text, help="a corpus: a file, a folder, or a pattern in quotes")
    add("second", metavar="B", type=path_text, help="the corpus that should be better")
    add(
        "--dev",
        nargs="+",
        action="extend",
        required=True,
        type=path_text,
        metavar="FILE",
        help="text that was kept out of both",
    )
    add_options(parser, CorporaConfig, "*", output=Differs(required=True))
    add_options(parser, RunConfig, device=Differs(default="auto"))
    return parser
