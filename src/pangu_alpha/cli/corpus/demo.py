"""`corpus.py demo`: builds a corpus from real and planted web pages, and checks it against the answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pangu_alpha.cli.corpus import running
from pangu_alpha.cli.options import path_text, positive
from pangu_alpha.corpus.demo import confusion, fates, write_demo
from pangu_alpha.files.shown import shown

_EPILOG = """\
The real pages come from Debian packages (about 10 MB), which are fetched once, checked, and only unpacked.
Planted among them is every kind of page that a crawl holds, with a known answer: wrong encodings, cut
records, advertisements, copies, personal data and others.

exit code: 0 every planted page has the fate that its kind must have; 1 some have not; 2 wrong input
"""


def add_demo(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="build a demonstration corpus, and check it",
        description="Builds a corpus from a web set with known answers, in minutes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("directory", type=path_text, metavar="DIR", help="folder for the web set and the corpus")
    add("--small", action="store_true", help="planted pages only, made by code: nothing is fetched")
    add("--engine", choices=("local", "spark"), default="local", help="see `run` (default: local)")
    add("--workers", type=positive, metavar="N", help="processes of the local engine (default: one for each "
        "processor)")  # fmt: skip
    add("--master", metavar="URL", help="address of the Spark cluster")
    parser.set_defaults(call=run)


def run(options: argparse.Namespace) -> int:
    """Writes the set, builds the corpus and checks it; returns the exit code."""
    config = write_demo(options.directory, options.small)
    options.config, options.changes, options.until = str(config), [], None
    running.run(options)
    folder = Path(options.directory)
    found = confusion(folder / "answers.jsonl", fates(folder / "corpus"))
    print(found.table())
    print(f"configuration: {shown(config)}")
    return 1 if found.wrong else 0
