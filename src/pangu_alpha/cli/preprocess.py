"""Command line of preprocess.py: makes a folder of records from corpus files and a vocabulary."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tqdm import tqdm

from pangu_alpha.cli.corpus_options import (
    add_corpus_options,
    described_characters,
    described_inputs,
    found_inputs,
    read_options,
)
from pangu_alpha.cli.keys import keys_text
from pangu_alpha.cli.options import Differs, add_options, add_vocabulary_option, config_from, path_text
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.schema import build, parse_overrides
from pangu_alpha.data.manifest import Manifest
from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.processes.workers import Advance
from pangu_alpha.text.clean import CleanRules
from pangu_alpha.text.documents.inputs import few

_MOST_UNKNOWN = 0.01  # share of <unk> in a file's tokens that is worth a warning
_EXAMPLE = """\
example:
  python src/preprocess.py --input 'text/*.jsonl' --vocabulary vocab.model --output records --seq-length 1024

An interrupted run is continued by the same command; finished inputs are not read again.
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="preprocess.py",
        description="Turn text into MindRecord files of token windows, with a manifest.",
        epilog=f"{_EXAMPLE}\ncleaning rules:\n{keys_text(CleanRules)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_corpus_options(parser)
    add_vocabulary_option(parser, required=True)
    add("--output", required=True, type=path_text, metavar="DIR", help="new or empty folder for the records")
    add("--clean", nargs="+", action="extend", default=[], metavar="RULE=VALUE", help="change cleaning "
        "rules, which are listed below")  # fmt: skip
    add("--no-clean", action="store_true", help="leave the text as it is")
    add_options(
        parser,
        PreprocessConfig,
        "end_of_document",
        "pad_last",
        "windows_per_shard",
        seq_length=Differs(required=True),
        workers=Differs(default=os.cpu_count()),
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs preprocess.py; raises ValueError for what the user can fix."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.no_clean and options.clean:
        parser.error("--clean and --no-clean exclude each other")
    inputs = found_inputs(options)
    fixed = {
        "inputs": inputs.files,
        "tokenizer": options.tokenizer,
        "output": options.output,
        "read": read_options(options),
        "clean": None if options.no_clean else build(CleanRules, parse_overrides(options.clean), "clean"),
    }
    config = config_from(options, PreprocessConfig, fixed)
    with _Bars() as bars:
        manifest = preprocess(config, bars.stage)
    print("\n  ".join([summary(manifest, options.output), *described_inputs(inputs)]))
    for warning in warnings(manifest):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


class _Bars:
    """Shows a progress bar for each stage: share done, tokens per second, time left."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def stage(self, name: str, unit: str, total: int) -> Advance:
        self.__exit__()
        seconds = 0.5 if sys.stderr.isatty() else 30.0  # fewer lines for a log file
        bar = self._bar = tqdm(
            desc=name, unit=unit, total=total, unit_scale=True, mininterval=seconds, dynamic_ncols=True
        )
        tokens = 0

        def advance(units: int, made: int) -> None:
            nonlocal tokens
            tokens += made
            seconds = bar.format_dict["elapsed"]
            bar.set_postfix_str(f"{tokens:,} tokens, {tokens / max(seconds, 1e-3):,.0f}/s", refresh=False)
            bar.update(units)

        return advance

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def summary(manifest: Manifest, folder: str) -> str:
    """Describes what the records hold, and what was lost on the way."""
    size = sum(shard.data.bytes + shard.index.bytes for shard in manifest.shards)
    lines = [
        f"{folder}: complete, {len(manifest.shards)} MindRecord file(s), {size:,} bytes",
        f"  documents  {manifest.documents:,} from {len(manifest.inputs):,} input file(s)",
        f"  tokens     {manifest.tokens:,}, each document ended by {manifest.vocabulary.end_of_document}"
        f" (id {manifest.vocabulary.end_of_document_id})",
        f"  windows    {manifest.windows:,} of {manifest.seq_length} + 1 tokens",
        f"  remainder  {manifest.remainder:,} tokens left out, {manifest.padding:,} <pad> added",
    ]
    if manifest.characters is not None and manifest.unknown is not None:
        known = manifest.tokens - manifest.documents - manifest.unknown
        lines[3:3] = [
            f"             = {known:,} of text + {manifest.unknown:,} <unk> + {manifest.documents:,} ends"
        ]
        lines += [f"  {line}" for line in described_characters(manifest.characters)]
    problems = [f"{count:,} {kind.replace('_', ' ')}" for kind, count in manifest.problems.items()]
    lines += [f"  skipped, replaced or removed: {', '.join(problems)}"] * bool(problems)
    empty = [file.path for file in manifest.inputs if not file.documents]
    lines += [f"  no document in {path}" for path in few(empty)]
    return "\n".join(lines)


def warnings(manifest: Manifest) -> list[str]:
    """Warns about what is probably wrong, although nothing failed."""
    shares = [
        ((file.unknown or 0) / max(file.tokens - file.documents, 1), file.path) for file in manifest.inputs
    ]
    strange = [share for share in shares if share[0] > _MOST_UNKNOWN]
    if not strange:
        return []
    share, worst = max(strange)
    return [
        f"in {len(strange):,} of {len(shares):,} input file(s) more than {_MOST_UNKNOWN:.0%} of the tokens "
        f"are <unk>, characters that the vocabulary does not have; most in {worst}: {share:.1%}. Look "
        "whether its text is what it should be, and whether the vocabulary is made for such text"
    ]


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
