"""One corpus file to one file of token ids, each document followed by the end-of-document id.

The token file is a raw little-endian array; a small JSON beside it, written last, says what it was made from,
so an interrupted run finds it and a changed input is done again. Memory O(largest document) and, with
duplicate lines dropped, 16 bytes for every line of the file. Imports no MindSpore.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.config.schema import ConfigError, build, to_mapping
from pangu_alpha.data.manifest import InputFile, write_json
from pangu_alpha.data.packing import token_dtype
from pangu_alpha.data.workers import Advance
from pangu_alpha.text.clean import Cleaner, CleanReport, CleanRules
from pangu_alpha.text.documents import DocumentReader, ReadOptions
from pangu_alpha.text.tokenizer import PanguTokenizer

# Characters of the documents that are encoded together.
_LOAD = 1 << 18


@dataclass(frozen=True)
class TokenJob:
    """One corpus file to be tokenized.

    Args:
        source: Corpus file as the user named it.
        target: Token file.
        vocab_file: Vocabulary.
        tokenizer_digest: Its digest; the vocabulary must not change between the files of one corpus.
        end_of_document: Name of the control piece after each document.
        read: How the file becomes documents.
        clean: What is taken out of them; None leaves them as they are.
    """

    source: str
    target: Path
    vocab_file: str
    tokenizer_digest: str
    end_of_document: str
    read: ReadOptions
    clean: CleanRules | None

    @property
    def receipt(self) -> Path:
        """The JSON beside the token file."""
        return self.target.with_name(f"{self.target.name}.json")

    @property
    def recipe(self) -> str:
        """Digest of everything but the source that decides the ids."""
        clean = to_mapping(self.clean)
        recipe = [self.tokenizer_digest, self.end_of_document, to_mapping(self.read), clean]
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Receipt:
    """What a token file was made from and holds.

    Args:
        recipe: See TokenJob.recipe.
        input: The corpus file.
        token_bytes: Size of the token file.
    """

    recipe: str
    input: InputFile
    token_bytes: int


def write_tokens(job: TokenJob, advance: Advance) -> InputFile:
    """Tokenizes one corpus file, or finds it tokenized by an earlier run.

    Args:
        job: What to do.
        advance: Hears of the bytes read and tokens made.

    Returns:
        The file's identity and counts.

    Raises:
        ValueError: Bad input that the options do not allow, or the vocabulary changed meanwhile.
    """
    before = os.stat(job.source)
    finished = _finished(job, before)
    if finished is not None:
        advance(finished.bytes, finished.tokens)
        return finished
    tokenizer = _tokenizer(job.vocab_file, job.tokenizer_digest)
    partial = job.target.with_name(f"{job.target.name}.partial")
    documents, tokens, blank, problems = _encode_file(job, tokenizer, partial, advance)
    after = os.stat(job.source)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError(f"{job.source}: changed while it was read; run again when it is complete")
    os.replace(partial, job.target)
    problems = {**problems, **({"documents_without_tokens": blank} if blank else {})}
    made = InputFile(job.source, before.st_size, before.st_mtime_ns, documents, tokens, problems)
    write_json(job.receipt, to_mapping(Receipt(job.recipe, made, job.target.stat().st_size)))
    return made


def _finished(job: TokenJob, source: os.stat_result) -> InputFile | None:
    if not (job.receipt.is_file() and job.target.is_file()):
        return None
    try:
        receipt = build(Receipt, json.loads(job.receipt.read_text(encoding="utf-8")))
    except (ConfigError, json.JSONDecodeError, UnicodeDecodeError):
        return None  # not one of ours any more: make it anew
    now = (job.source, source.st_size, source.st_mtime_ns, job.recipe, job.target.stat().st_size)
    then = receipt.input
    made_of = (then.path, then.bytes, then.modified_ns, receipt.recipe, receipt.token_bytes)
    return receipt.input if now == made_of else None


@functools.lru_cache(maxsize=1)
def _tokenizer(vocab_file: str, digest: str) -> PanguTokenizer:
    """The vocabulary, loaded once per process."""
    tokenizer = PanguTokenizer(vocab_file)
    if tokenizer.digest != digest:
        raise ValueError(f"{vocab_file}: changed since the run began; start it again in another --output")
    return tokenizer


def _encode_file(
    job: TokenJob, tokenizer: PanguTokenizer, target: Path, advance: Advance
) -> tuple[int, int, int, dict[str, int]]:
    """Writes the ids; returns documents, tokens, documents that had no token, and problems by kind."""
    reader = DocumentReader(job.source, job.read)
    cleaner = Cleaner(job.clean) if job.clean is not None else None
    meter = _Meter(job.source, advance)
    texts = meter.watch(reader)
    if cleaner is not None:
        texts = cleaner.clean_all(texts)
    end, dtype = tokenizer.id_of(job.end_of_document), token_dtype(tokenizer.vocab_size)
    documents = tokens = blank = 0
    with target.open("wb") as file:
        for load in _loads(texts):
            rows = [[*ids, end] for ids in tokenizer.encode_batch(load) if ids]
            ids = np.fromiter(itertools.chain.from_iterable(rows), dtype)
            assert np.count_nonzero(ids == end) == len(rows), "the tokenizer made a control id of text"
            ids.tofile(file)
            documents, tokens, blank = documents + len(rows), tokens + len(ids), blank + len(load) - len(rows)
            meter.tell(len(ids))
    meter.finish()
    problems = dict(reader.report.problems)
    if cleaner is not None:
        problems |= _removed(cleaner.report)
    return documents, tokens, blank, problems


def _removed(report: CleanReport) -> dict[str, int]:
    counts = dataclasses.asdict(report)
    return {kind: n for kind, n in counts.items() if n and not kind.endswith(("_in", "_out"))}


def _loads(texts: Iterable[str]) -> Iterator[list[str]]:
    load: list[str] = []
    size = 0
    for text in texts:
        load.append(text)
        size += len(text)
        if size >= _LOAD:
            yield load
            load, size = [], 0
    if load:
        yield load


class _Meter:
    """Reports how far a file has been read, estimated by the size of its documents' text.

    A compressed file's text is larger than the file: it counts when it is finished.
    """

    def __init__(self, source: str, advance: Advance) -> None:
        self._left = os.path.getsize(source)
        self._packed = source.endswith((".gz", ".parquet"))
        self._advance = advance
        self._read = 0

    def watch(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            self._read += len(text.encode("utf-8", "replace"))
            yield text

    def tell(self, tokens: int) -> None:
        step = 0 if self._packed else min(self._read, self._left)
        self._left, self._read = self._left - step, 0
        self._advance(step, tokens)

    def finish(self) -> None:
        self._advance(self._left, 0)
