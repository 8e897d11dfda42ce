"""`python -m pangu_alpha.cli.vocab --input FILES --size N --output FILE`: trains a vocabulary."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from pangu_alpha.cli import run_main
from pangu_alpha.cli.corpus_options import (
    add_corpus_options,
    described_characters,
    described_inputs,
    found_inputs,
    read_options,
)
from pangu_alpha.cli.options import number, positive, user_path
from pangu_alpha.cli.parser import Parser
from pangu_alpha.text.clean import Cleaner
from pangu_alpha.text.documents.read_options import ReadReport
from pangu_alpha.text.documents.reading import DocumentReader
from pangu_alpha.text.ledger import total
from pangu_alpha.text.vocabulary import UNLEARNABLE, SkippedCharacters, train_vocabulary


def main(arguments: list[str]) -> int:
    """Train a SentencePiece vocabulary on text, JSON or parquet files, cleaned first."""
    options = _parser().parse_args(arguments)
    if options.output.exists() and not options.overwrite:
        raise ValueError(
            f"{options.output}: exists already, and records and checkpoints may be of it; give another "
            "--output, or --overwrite to replace it"
        )
    inputs = found_inputs(options)
    readers = [DocumentReader(path, read_options(options)) for path in inputs.files]
    for reader in readers:
        reader.check_beginning()
    cleaner, skipped = Cleaner(), SkippedCharacters()
    tokenizer = train_vocabulary(
        cleaner.clean_all(_documents(readers)),
        options.output,
        options.size,
        character_coverage=options.coverage,
        threads=options.threads,
        skipped=skipped,
    )
    report = sum((reader.report for reader in readers), ReadReport())
    ledger = total(reader.ledger for reader in readers).then(cleaner.ledger).checked("the corpus")
    print(f"{options.output}: {tokenizer.vocab_size} pieces from {report.documents} documents, ", end="")
    print(f"{ledger.kept} characters; sha256 {tokenizer.digest}")
    print("\n".join([*described_characters(ledger), *described_inputs(inputs)]))
    if report.problems:
        print("read with problems: " + ", ".join(f"{name} {n}" for name, n in report.problems.items()))
    if skipped.count:
        print(
            f"not learnt: {skipped.count:,} times U+{ord(UNLEARNABLE):04X} ({UNLEARNABLE}), which "
            "SentencePiece keeps for itself; it becomes <unk>"
        )
    return 0


def _documents(readers: list[DocumentReader]) -> Iterator[str]:
    for reader in readers:
        yield from reader


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m pangu_alpha.cli.vocab", description=main.__doc__)
    add_corpus_options(parser)
    add = parser.add_argument
    add("--size", required=True, type=positive, metavar="N", help="number of "
        "pieces, the ten special ones included")  # fmt: skip
    add("--output", required=True, type=user_path, metavar="FILE", help="the SentencePiece model to write")
    add("--overwrite", action="store_true", help="replace an --output that exists already")
    add("--coverage", type=number, default=1.0, metavar="SHARE",
        help="share of the characters of the text that get a piece (default: %(default)s)")  # fmt: skip
    add("--threads", type=positive, default=1, metavar="N", help="threads (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run_main(main)
