"""Options with which commands are given text: the files, and how they become documents."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from pangu_alpha.cli.options import byte_size, nonnegative_number, path_text
from pangu_alpha.text.documents.inputs import Inputs, find_inputs
from pangu_alpha.text.documents.opening import FORMATS
from pangu_alpha.text.documents.read_options import LARGEST_DOCUMENT, SPLITS, ReadOptions
from pangu_alpha.text.ledger import CharacterLedger


def add_corpus_options(parser: ArgumentParser) -> None:
    """Adds the options that `found_inputs` and `read_options` look at."""
    add = parser.add_argument
    add("--input", nargs="+", action="extend", default=[], type=path_text, metavar="FILE", help="files; "
        "folders, of which all text, JSON and parquet files are taken; patterns in quotes: "
        "'news/**/*.jsonl.xz'")  # fmt: skip
    add("--input-list", action="append", default=[], type=path_text, metavar="LIST", help="a file with one "
        "such name a line (- is the standard input): for more files than a command line holds")  # fmt: skip
    add("--split", choices=SPLITS, default="file", help="what is a document in a .txt file (default: file)")
    add("--field", default="text", help="JSON field or parquet column of the text; a.b is field b in field "
        "a or in each part of the list a (default: text)")  # fmt: skip
    add("--encoding", default="utf-8", metavar="NAME", help="of the files: gb18030, big5, utf-16, ... "
        "(default: utf-8)")  # fmt: skip
    add("--format", choices=("auto", *FORMATS), default="auto", help="what the files are; auto goes by "
        "their names (default: auto)")  # fmt: skip
    add("--invalid-utf8", choices=("replace", "skip", "error"), default="replace", help="what to do about a "
        "few bad bytes: replace them, skip the document, or end (default: replace)")  # fmt: skip
    add("--invalid-share", type=nonnegative_number, default=0.001, metavar="SHARE", help="a file with a "
        "larger share of bad bytes is in another encoding and is refused (default: 0.001)")  # fmt: skip
    add("--broken", choices=("error", "skip"), default="error", help="what to do about records that "
        "are not JSON or lack the field, damaged archives, too large documents (default: error)")  # fmt: skip
    add("--largest-document", type=byte_size, default=LARGEST_DOCUMENT, metavar="SIZE", help="a larger "
        f"document or record is refused, such as 500MB (default: {LARGEST_DOCUMENT >> 20} MiB)")  # fmt: skip


def found_inputs(options: Namespace) -> Inputs:
    """The files that the options name.

    Raises:
        ValueError: They name none.
    """
    if not options.input and not options.input_list:
        raise ValueError("no input; give --input FILE, or --input-list FILE with names of files")
    found = find_inputs(options.input, options.input_list)
    if not found.files:
        raise ValueError(f"--input-list {', '.join(options.input_list)}: names no file")
    return found


def read_options(options: Namespace) -> ReadOptions:
    """How the options say files become documents."""
    return ReadOptions(
        split=options.split,
        field=options.field,
        invalid_utf8=options.invalid_utf8,
        broken=options.broken,
        encoding=options.encoding,
        format=options.format,
        invalid_share=options.invalid_share,
        largest_document=options.largest_document,
    )


def described_inputs(inputs: Inputs) -> list[str]:
    """A sentence about what lies in the folders and was not taken."""
    names = inputs.passed_over
    if not names:
        return []
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    shown_names = ", ".join(f"{name}/" if os.path.isdir(name) else name for name in names[:3])
    return [f"not read, as their names say nothing of text, or as links to folders: {shown_names}{more}"]


def described_characters(ledger: CharacterLedger) -> list[str]:
    """What became of the characters, for people."""
    gone = ledger.given - ledger.kept
    lines = [f"characters {ledger.given:,} in = {ledger.kept:,} kept + {gone:,} dropped"]
    largest_first = sorted(ledger.dropped.items(), key=lambda item: -item[1])
    reasons = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in largest_first]
    return [*lines, f"dropped    {', '.join(reasons)}"] if reasons else lines
