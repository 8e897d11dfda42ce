"""`python -m pangu_alpha.cli.vocab --input FILES --size N --output FILE`: train a vocabulary."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pangu_alpha.cli import run_main
from pangu_alpha.text.clean import Cleaner
from pangu_alpha.text.documents import SPLITS, DocumentReader, ReadOptions, ReadReport
from pangu_alpha.text.vocabulary import train_vocabulary


def main(arguments: list[str]) -> int:
    """Train a SentencePiece vocabulary on text, JSONL or parquet files, cleaned first."""
    options = _parser().parse_args(arguments)
    if options.output.exists() and not options.overwrite:
        raise ValueError(
            f"{options.output}: exists already, and records and checkpoints may be of it; give another "
            "--output, or --overwrite to replace it"
        )
    reading = ReadOptions(split=options.split, field=options.field)
    readers = [DocumentReader(path, reading) for path in options.input]
    cleaner = Cleaner()
    tokenizer = train_vocabulary(
        cleaner.clean_all(_documents(readers)),
        options.output,
        options.size,
        character_coverage=options.coverage,
        threads=options.threads,
    )
    report = sum((reader.report for reader in readers), ReadReport())
    print(f"{options.output}: {tokenizer.vocab_size} pieces from {report.documents} documents, ", end="")
    print(f"{cleaner.report.characters_out} characters; sha256 {tokenizer.digest}")
    if report.problems:
        print("read with problems: " + ", ".join(f"{name} {n}" for name, n in report.problems.items()))
    return 0


def _documents(readers: list[DocumentReader]) -> Iterator[str]:
    for reader in readers:
        yield from reader


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pangu_alpha.cli.vocab", description=main.__doc__)
    parser.add_argument("--input", nargs="+", required=True, type=Path, metavar="FILE")
    parser.add_argument("--size", required=True, type=int, help="number of pieces")
    parser.add_argument("--output", required=True, type=Path, help="the SentencePiece model to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an --output that exists already")
    parser.add_argument("--split", choices=SPLITS, default="file", help="how .txt files become documents")
    parser.add_argument("--field", default="text", help="JSONL field or parquet column")
    parser.add_argument("--coverage", type=float, default=1.0, help="share of characters that get pieces")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    run_main(main)
