"""Tokenizer speed: one process against jieba 0.42.1 + SentencePiece, and two processes against one.

Prints the processor, a row a corpus and, last, one JSON line. Runs take turns; medians are of the rounds that
nothing disturbed (rounds.py). Loading jieba's dictionary and the vocabulary is not timed.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jieba
import machine
import sentencepiece
from rounds import Summary, report, summarize, verdict

from pangu_alpha.text.corpora import documents, fetch_all
from pangu_alpha.text.tokenizer import NEWLINE, SPACE, PanguTokenizer

CORPORA = ("sanguo", "statutes")
POOL_REPEATS = 6  # times the text is encoded in the measure over processes, so that a round takes seconds

_worker: PanguTokenizer | None = None
_parts: list[str] = []


def main() -> None:
    """Measure and print."""
    options = _parser().parse_args()
    found = machine.this_machine(machine.usable_cores())
    vocab = options.vocab or fetch_all(["vocab"])["vocab"]
    tokenizer, reference = PanguTokenizer(vocab), _Reference(vocab)
    texts = {str(path): [path.read_text(encoding="utf-8")] for path in options.text} or _fetched()
    texts = {name: list(_limited(parts, options.megabytes * 1e6)) for name, parts in texts.items()}
    ratios, identical, summaries = [], True, {}
    for name, parts in texts.items():
        megabytes = sum(len(part.encode()) for part in parts) / 1e6
        identical &= [tokenizer.encode(part) for part in parts] == [reference.encode(part) for part in parts]
        runs = (_run(coder, parts) for coder in (tokenizer, reference))
        mine, other = _alternate(options.rounds, *runs)
        summaries |= {name: mine, f"{name} by jieba + SentencePiece": other}
        ours, theirs = mine.median, other.median
        ratios.append(theirs / ours)
        print(f"{name}: {megabytes:.2f} MB, {megabytes / ours:.2f} MB/s, jieba + SentencePiece ", end="")
        print(f"{megabytes / theirs:.2f} MB/s, ratio {ratios[-1]:.2f}")
    everything = [part for parts in texts.values() for part in parts]
    pools = _processes_summaries(vocab, everything, options.rounds)
    summaries |= pools
    encode1, encode2, spin1, spin2 = (each.median for each in pools.values())
    processes_2 = encode1 / encode2, spin1 / spin2
    print(f"2 processes against 1: {processes_2[0]:.2f}, of a bare loop {processes_2[1]:.2f}")
    report(summaries)
    result = _result(ratios, list(texts), identical, processes_2, options.rounds)
    print(json.dumps({**result, **found, **verdict(summaries)}))


class _Reference:
    """The release's algorithm with the release's libraries."""

    def __init__(self, vocab: Path) -> None:
        jieba.setLogLevel(logging.WARNING)
        jieba.initialize()
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(vocab))

    def encode(self, text: str) -> list[int]:
        words = (word.replace(" ", SPACE).replace("\n", NEWLINE) for word in jieba.cut(text, cut_all=False))
        return self._model.encode(" ".join(words))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", nargs="*", type=Path, default=[], help="UTF-8 files instead of the corpora")
    parser.add_argument("--vocab", type=Path, help="a vocabulary instead of the released one")
    parser.add_argument("--megabytes", type=float, default=1.8, help="of each text, at most")
    parser.add_argument("--rounds", type=int, default=5)
    return parser


def _fetched() -> dict[str, list[str]]:
    return {name: list(documents(name, path)) for name, path in fetch_all(CORPORA).items()}


def _limited(parts: list[str], limit: float) -> Iterator[str]:
    """The first parts that make up `limit` bytes, the last one cut."""
    for part in parts:
        size = len(part.encode())
        yield part if size <= limit else part[: int(len(part) * limit / size)]
        limit -= size
        if limit <= 0:
            return


def _run(coder: PanguTokenizer | _Reference, parts: list[str]) -> Callable[[], object]:
    return lambda: [coder.encode(part) for part in parts]


def _alternate(rounds: int, *runs: Callable[[], object]) -> list[Summary]:
    """What the rounds of each run say, the runs taking turns."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [summarize(taken) for taken in seconds]


def _processes_summaries(vocab: Path, parts: list[str], rounds: int) -> dict[str, Summary]:
    """Times in one worker process and in two: of encoding, and of a loop that touches no memory, which is
    what the machine can give. Workers hold the texts beforehand, as those of preprocess.py read their own.
    """
    work = [*range(len(parts))] * POOL_REPEATS
    context = multiprocessing.get_context("spawn")
    setup = (_start_worker, [vocab, parts])
    with context.Pool(1, *setup) as one, context.Pool(2, *setup) as two:
        runs = [
            lambda pool=pool, task=task: sum(pool.imap_unordered(task, work, 16))
            for task in (_count, _spin)
            for pool in (one, two)
        ]
        assert runs[0]() == runs[1](), "the same text gave different numbers of tokens"
        names = ("1 process", "2 processes", "loop in 1 process", "loop in 2 processes")
        return dict(zip(names, _alternate(rounds, *runs), strict=True))


def _start_worker(vocab: Path, parts: list[str]) -> None:
    global _worker, _parts
    _worker, _parts = PanguTokenizer(vocab), parts
    _worker.encode("预热")


def _count(part: int) -> int:
    assert _worker is not None
    return len(_worker.encode(_parts[part]))


def _spin(part: int) -> int:
    return sum(number * number % 7 for number in range(20_000 + part))


def _result(
    ratios: list[float], names: list[str], identical: bool, processes_2: tuple[float, float], rounds: int
) -> dict:
    return {
        "metric": "tokenize_speed",
        "ratio": round(min(ratios), 3),
        "ratios": {name: round(ratio, 3) for name, ratio in zip(names, ratios, strict=True)},
        "identical": identical,
        "processes_2_ratio": round(processes_2[0], 3),
        "machine_2_ratio": round(processes_2[1], 3),
        "rounds": rounds,
        "jieba": jieba.__version__,
        "sentencepiece": sentencepiece.__version__,
    }


if __name__ == "__main__":
    main()
