"""The options by which commands receive text: its files, and how they become documents."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from pangu_alpha.cli.options import Differs, add_options, byte_size, config_from, path_text
from pangu_alpha.text.documents.inputs import Inputs, find_inputs
from pangu_alpha.text.documents.read_options import LARGEST_DOCUMENT, ReadOptions
from pangu_alpha.text.ledger import CharacterLedger


def add_corpus_options(parser: ArgumentParser) -> None:
    """Adds the options for `found_inputs` and `read_options`."""
    add = parser.add_argument
    add("--input", nargs="+", action="extend", default=[], type=path_text, metavar="FILE", help="files; "
        "folders, of which all text, JSON and parquet files are taken; patterns in quotes: "
        "'news/**/*.jsonl.xz'")  # fmt: skip
    add("--input-list", action="append", default=[], type=path_text, metavar="LIST", help="a file with one "
        "such name a line (- is the standard input): for more files than a command line holds")  # fmt: skip
    size = Differs(shown=f"{LARGEST_DOCUMENT >> 20} MiB", read=byte_size)
    add_options(parser, ReadOptions, "*", largest_document=size)


def found_inputs(options: Namespace) -> Inputs:
    """Returns the files that the options name.

    Raises:
        ValueError: They name no file.
    """
    if not options.input and not options.input_list:
        raise ValueError("no input; give --input FILE, or --input-list FILE with names of files")
    found = find_inputs(options.input, options.input_list)
    if not found.files:
        raise ValueError(f"--input-list {', '.join(options.input_list)}: names no file")
    return found


def read_options(options: Namespace) -> ReadOptions:
    """Returns the options that decide how files become documents."""
    return config_from(options, ReadOptions)


def described_inputs(inputs: Inputs) -> list[str]:
    """Describes what the folders contain besides the files taken; at most one sentence."""
    names = inputs.passed_over
    if not names:
        return []
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    shown_names = ", ".join(f"{name}/" if os.path.isdir(name) else name for name in names[:3])
    return [f"not read, as their names say nothing of text, or as links to folders: {shown_names}{more}"]


def described_characters(ledger: CharacterLedger) -> list[str]:
    """Describes what became of the characters."""
    gone = ledger.given - ledger.kept
    lines = [f"characters {ledger.given:,} in = {ledger.kept:,} kept + {gone:,} dropped"]
    largest_first = sorted(ledger.dropped.items(), key=lambda item: -item[1])
    reasons = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in largest_first]
    return [*lines, f"dropped    {', '.join(reasons)}"] if reasons else lines
