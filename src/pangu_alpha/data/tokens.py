"""Turns one corpus file into one file of token ids, with the end-of-document id after each document.

The token file is a raw little-endian array. A small JSON file beside it, written last, records what it was
made from, so that a restarted run reuses it, and makes it again if the input has changed. Memory is O(largest
document), and with duplicate lines dropped also 16 bytes for every line of the file. Imports no MindSpore.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pangu_alpha.config.schema import ConfigError, build, to_mapping
from pangu_alpha.data.manifest import FileDigest, InputFile, recorded_name
from pangu_alpha.data.packing import token_dtype
from pangu_alpha.files.reading import ReadError, read_json
from pangu_alpha.files.writing import json_text
from pangu_alpha.processes.workers import Advance
from pangu_alpha.text.clean import Cleaner, CleanReport, CleanRules
from pangu_alpha.text.documents.opening import kind_by_name
from pangu_alpha.text.documents.read_options import ReadOptions
from pangu_alpha.text.documents.reading import DocumentReader
from pangu_alpha.text.ledger import CharacterLedger
from pangu_alpha.text.tokenizer import PanguTokenizer

# Number of characters to encode together.
_LOAD = 1 << 18


@dataclass(frozen=True)
class TokenJob:
    """One corpus file to be tokenized.

    Args:
        source: Corpus file as the user named it.
        target: Token file to write.
        tokenizer_digest: Digest of the vocabulary, which must not change between the files of one corpus.
        end_of_document: Name of the control piece after each document.
        read: How the file is split into documents.
        clean: Cleaning rules; None leaves documents unchanged.
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
        """The JSON file beside the token file."""
        return self.target.with_name(f"{self.target.name}.json")

    @property
    def recipe(self) -> str:
        """Digest of everything that decides the ids, except the source."""
        clean = to_mapping(self.clean)
        recipe = [self.tokenizer_digest, self.end_of_document, self.read.changed(), clean]
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Receipt:
    """What a token file was made from, and its content.

    Args:
        recipe: See TokenJob.recipe.
        token_sha256: Digest of the token file. Neither file is flushed, so a power cut may destroy one of
            them.
    """

    recipe: str
    input: InputFile
    token_sha256: str


@dataclass
class _Counts:
    """Counts of what was written for one file.

    Args:
        end: The end-of-document id.
        characters: Characters of all documents encoded.
        documents: Documents that gave at least one token.
        tokens: Number of ids, including end-of-document ids.
        unknown: Number of <unk> ids.
        blank: Documents that gave no token.
        blank_characters: Characters of these documents.
        digest: SHA-256 of the bytes written.
        ends: Number of end-of-document ids in the file.
    """

    end: int
    characters: int = 0
    documents: int = 0
    tokens: int = 0
    unknown: int = 0
    blank: int = 0
    blank_characters: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    ends: int = 0

    @property
    def ledger(self) -> CharacterLedger:
        dropped = {"documents_without_tokens": self.blank_characters} if self.blank_characters else {}
        return CharacterLedger(self.characters, self.characters - self.blank_characters, dropped)


def write_tokens(job: TokenJob, advance: Advance) -> InputFile:
    """Tokenizes one corpus file, unless an earlier run has.

    Args:
        advance: Called with the bytes read and the tokens made since the last call.

    Returns:
        The file's identity and counts.

    Raises:
        ValueError: The input is bad in a way that the options do not allow, or the vocabulary has changed.
    """
    before = os.stat(job.source)
    finished = _finished(job, before)
    if finished is not None:
        advance(finished.bytes, finished.tokens)
        return finished
    tokenizer = _tokenizer(job.vocab_file, job.tokenizer_digest)
    partial = job.target.with_name(f"{job.target.name}.partial")
    counts, problems, characters = _encode_file(job, tokenizer, partial, advance)
    after = os.stat(job.source)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError(f"{job.source}: changed while it was read; run again when it is complete")
    os.replace(partial, job.target)
    made = InputFile(
        path=recorded_name(job.source),
        bytes=before.st_size,
        modified_ns=before.st_mtime_ns,
        documents=counts.documents,
        tokens=counts.tokens,
        problems=problems,
        characters=characters,
        unknown=counts.unknown,
    )
    _write_receipt(job.receipt, Receipt(job.recipe, made, counts.digest.hexdigest()))
    return made


def _write_receipt(path: Path, receipt: Receipt) -> None:
    """Writes without flushing: a corpus of 100,000 files would otherwise wait for the disk 200,000 times."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json_text(to_mapping(receipt), indent=None), encoding="utf-8")
    os.replace(partial, path)


def _finished(job: TokenJob, source: os.stat_result) -> InputFile | None:
    if not (job.receipt.is_file() and job.target.is_file()):
        return None
    try:
        receipt = build(Receipt, read_json(job.receipt))
    except (ConfigError, ReadError):
        return None  # the receipt is damaged, so the file is tokenized again
    now = (recorded_name(job.source), source.st_size, source.st_mtime_ns, job.recipe)
    then = receipt.input
    if now != (then.path, then.bytes, then.modified_ns, receipt.recipe):
        return None
    return then if FileDigest.of(job.target).sha256 == receipt.token_sha256 else None


@functools.lru_cache(maxsize=1)
def _tokenizer(vocab_file: str, digest: str) -> PanguTokenizer:
    """Loads the vocabulary once per process."""
    tokenizer = PanguTokenizer(vocab_file)
    if tokenizer.digest != digest:
        raise ValueError(f"{vocab_file}: changed since the run began; start it again in another --output")
    return tokenizer


def _encode_file(
    job: TokenJob, tokenizer: PanguTokenizer, target: Path, advance: Advance
) -> tuple[_Counts, dict[str, int], CharacterLedger]:
    """Writes the ids; returns counts, problems by kind, and what became of the file's characters."""
    reader = DocumentReader(job.source, job.read)
    cleaner = Cleaner(job.clean) if job.clean is not None else None
    meter = _Meter(job.source, advance)
    texts = meter.watch(reader)
    if cleaner is not None:
        texts = cleaner.clean_all(texts)
    counts = _Counts(tokenizer.id_of(job.end_of_document))
    with target.open("wb") as file:
        for load in _loads(texts):
            before = counts.tokens
            _write_ids(file, load, tokenizer, counts)
            meter.tell(counts.tokens - before)
    meter.finish()
    assert counts.ends == counts.documents, "the tokenizer made a control id of text"
    problems, ledger = dict(reader.report.problems), reader.ledger
    if cleaner is not None:
        problems |= _removed(cleaner.report)
        ledger = ledger.then(cleaner.ledger)
    if counts.blank:
        problems["documents_without_tokens"] = counts.blank
    return counts, problems, ledger.then(counts.ledger).checked(job.source)


def _write_ids(file: BinaryIO, load: list[str], tokenizer: PanguTokenizer, counts: _Counts) -> None:
    """Appends the ids of some documents and counts them."""
    if len(load) == 1:  # a list of Python integers is far larger than its text, so a long text goes in parts
        rows = tokenizer.encode_parts(load[0])
        lengths = [sum(_append(file, row, tokenizer, counts) for row in rows)]
        _append(file, [counts.end] * bool(lengths[0]), tokenizer, counts)
    else:
        encoded = tokenizer.encode_batch(load)
        lengths = list(map(len, encoded))
        _append(
            file,
            itertools.chain.from_iterable([*ids, counts.end] for ids in encoded if ids),
            tokenizer,
            counts,
        )
    blank = [len(text) for text, length in zip(load, lengths, strict=True) if not length]
    counts.characters += sum(map(len, load))
    counts.documents += len(load) - len(blank)
    counts.blank += len(blank)
    counts.blank_characters += sum(blank)


def _append(file: BinaryIO, row: Iterable[int], tokenizer: PanguTokenizer, counts: _Counts) -> int:
    ids = np.fromiter(row, token_dtype(tokenizer.vocab_size))
    ids.tofile(file)
    counts.digest.update(ids)
    counts.tokens += len(ids)
    counts.unknown += int(np.count_nonzero(ids == tokenizer.unk_id))
    counts.ends += int(np.count_nonzero(ids == counts.end))
    return len(ids)


def _removed(report: CleanReport) -> dict[str, int]:
    counts = dataclasses.asdict(report)
    return {kind: n for kind, n in counts.items() if n and not kind.endswith(("_in", "_out"))}


def _loads(texts: Iterable[str]) -> Iterator[list[str]]:
    """Groups documents to be encoded together; a long one gets a group of its own."""
    load: list[str] = []
    size = 0
    for text in texts:
        if load and len(text) >= _LOAD:
            yield load
            load, size = [], 0
        load.append(text)
        size += len(text)
        del text
        if size >= _LOAD:
            yield load
            load, size = [], 0
    if load:
        yield load


class _Meter:
    """Reports how much of a file has been read, estimated from the size of its documents' text.

    The text of a compressed file is larger than the file, so such a file counts only when it is finished.
    """

    def __init__(self, source: str, advance: Advance) -> None:
        self._left = os.path.getsize(source)
        kind = kind_by_name(Path(source))
        self._packed = kind is not None and bool(kind.packing or kind.format == "parquet")
        self._advance = advance
        self._read = 0

    def watch(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            # Estimates UTF-8 bytes: encoding a huge text would need a second copy only for a progress bar.
            self._read += len(text) if text.isascii() else 3 * len(text)
            yield text

    def tell(self, tokens: int) -> None:
        step = 0 if self._packed else min(self._read, self._left)
        self._left, self._read = self._left - step, 0
        self._advance(step, tokens)

    def finish(self) -> None:
        self._advance(self._left, 0)
