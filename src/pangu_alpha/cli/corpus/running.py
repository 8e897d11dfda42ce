"""`corpus.py run`: builds a corpus on this machine or on a Spark cluster."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any

from tqdm import tqdm

from pangu_alpha.cli.options import path_text, positive
from pangu_alpha.config.corpus import CorpusConfig, load_corpus_config
from pangu_alpha.config.schema import parse_overrides
from pangu_alpha.corpus.engine import Engine, LocalEngine, store
from pangu_alpha.corpus.stages import STAGES, build_corpus, result_of
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.files.shown import shown
from pangu_alpha.processes.workers import Advance


def add_run(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "run",
        help="build a corpus, or continue",
        description="Builds a corpus. What an earlier start has finished is checked and kept.",
        epilog=f"stages: {', '.join(stage.name for stage in STAGES)}",
    )
    add = parser.add_argument
    add("changes", nargs="*", metavar="KEY=VALUE", help="change keys of the configuration, such as "
        "partitions=8")  # fmt: skip
    add("--config", required=True, type=path_text, metavar="YAML", help="the corpus, see "
        "docs/configuration.md#corpus")  # fmt: skip
    add("--engine", choices=("local", "spark"), default="local", help="worker processes of this machine, or "
        "Spark (default: local)")  # fmt: skip
    add("--workers", type=positive, metavar="N", help="processes of the local engine (default: one for each "
        "processor)")  # fmt: skip
    add("--master", metavar="URL", help="address of the Spark cluster, such as spark://host:7077 (default: "
        "what spark-submit says)")  # fmt: skip
    add("--until", choices=[stage.name for stage in STAGES], metavar="STAGE", help="end after this stage")
    parser.set_defaults(call=run)


def run(options: argparse.Namespace) -> int:
    """Runs the stages; returns the exit code."""
    if options.engine == "spark" and options.workers:
        raise ValueError("--workers: is for --engine local; Spark's workers are those of its cluster")
    if options.engine == "local" and options.master:
        raise ValueError("--master: is for --engine spark")
    config = load_corpus_config(options.config, parse_overrides(options.changes))
    here = not store.is_remote(config.output)
    held = hold_folder(config.output, "building a corpus") if here else nullcontext()
    with held, closing(_engine(options)) as engine, _Bars() as bars:
        build_corpus(config, engine, bars.stage, bars.note, options.until)
    if options.until is None:
        print(summary(config))
    else:
        print(f"{shown(config.output)}: done up to {options.until}")
    return 0


def _engine(options: argparse.Namespace) -> Engine:
    if options.engine == "local":
        return LocalEngine(options.workers or os.cpu_count() or 1)
    from pangu_alpha.corpus.engine.spark import SparkEngine  # the only module that needs pyspark

    return SparkEngine(options.master)


class _Bars:
    """Shows a progress bar for each step of a stage: items done, time left."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def stage(self, name: str, total: int, done: int) -> Advance:
        self.__exit__()
        seconds = 0.5 if sys.stderr.isatty() else 30.0  # fewer lines for a log file
        bar = self._bar = tqdm(
            desc=name, unit="item", total=total, initial=done, mininterval=seconds, dynamic_ncols=True
        )

        def advance(items: int, _: int) -> None:
            bar.update(items)

        return advance

    def note(self, text: str) -> None:
        tqdm.write(shown(text), file=sys.stderr)

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def summary(config: CorpusConfig) -> str:
    """What came in, what was dropped for which reason, and what the corpus holds."""
    result = result_of(config.output)
    lines = [f"{shown(config.output)}: complete, {len(result['files']):,} files"]
    for source in config.sources:
        lines += _source_lines(source, result["ledger"])
    return "\n".join(lines)


def _source_lines(source: str, ledgers: Mapping[str, Any]) -> Iterator[str]:
    first = ledgers["extract"].get(source)
    if first is None:
        yield f"  {source}: no documents"
        return
    last = ledgers["write"].get(source, {}).get("out", {"documents": 0, "characters": 0, "bytes": 0})
    yield f"  {source}: {first['in']['documents']:,} documents in, {_counts(last)} out"
    for stage, ledger in ledgers.items():
        for reason, count in ledger.get(source, {}).get("dropped", {}).items():
            yield f"    {stage:13} {reason:22} {count['documents']:>12,} documents, {count['bytes']:,} bytes"


def _counts(count: Mapping[str, int]) -> str:
    return f"{count['documents']:,} documents, {count['characters']:,} characters, {count['bytes']:,} bytes"
