"""manifest.json: what a folder of records holds, how it was made, and the digests that prove it complete.

It is written last, so a folder without one is unfinished. Knows nothing of MindRecord's format and imports
no MindSpore. Memory is O(inputs + shards).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pangu_alpha.config.schema import ConfigError, build, to_mapping, validate
from pangu_alpha.files.reading import ReadError, read_json
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.files.writing import write_json
from pangu_alpha.text.ledger import CharacterLedger, total

FORMAT_VERSION = 2
_READABLE = (1, FORMAT_VERSION)  # version 1 counts neither characters nor <unk>
MANIFEST_NAME = "manifest.json"
_PLAIN_NAME = re.compile(r"(?!\.\.?$)[^/\0]+")
_CHUNK = 1 << 22


@dataclass(frozen=True)
class FileDigest:
    """A file's name within its folder, its size and its sha256 (hexadecimal) when it was written."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileDigest:
        """Reads and hashes a file in constant memory."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
        return cls(path.name, path.stat().st_size, digest.hexdigest())


@dataclass(frozen=True)
class Shard:
    """One MindRecord file.

    Args:
        data: The file itself, which is opened by its name.
        index: The database that MindRecord keeps beside it.
        windows: Number of its rows.
    """

    data: FileDigest
    index: FileDigest
    windows: int


@dataclass(frozen=True)
class InputFile:
    """One corpus file and what became of it.

    Args:
        path: Path as the user gave it; see `recorded_name`.
        bytes: Size when it was read.
        modified_ns: Modification time when it was read, ns since 1970.
        documents: Number of documents kept; each is followed by one end-of-document id.
        tokens: Number of ids, including the end-of-document ids.
        problems: How often something was skipped, replaced or removed, by kind.
        characters: What became of every character; None in records of format 1.
        unknown: Number of <unk> ids among the tokens; None in records of format 1.
    """

    path: str
    bytes: int
    modified_ns: int
    documents: int
    tokens: int
    problems: dict[str, int] = field(default_factory=dict)
    characters: CharacterLedger | None = None
    unknown: int | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary of the ids in the records.

    Args:
        digest: The tokenizer's digest.
        size: Number of ids.
        end_of_document: Name of the control piece after each document.
        pad_id: Id that fills up rows; a position with this input does not count in the loss.
    """

    digest: str
    size: int
    end_of_document: str
    end_of_document_id: int
    pad_id: int


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

    Windows are cut from the inputs' tokens in the order of `inputs`, so input k begins at token
    sum(tokens of inputs before k). Documents end at the end-of-document ids. The counts `tokens`, `documents`
    and `windows` are sums over all inputs or shards.

    Args:
        seq_length: S; a window has S + 1 ids.
        tokens: Equals windows * (S + 1) + remainder - padding.
        remainder: Number of ids at the end that fill no window and are left out.
        padding: Number of pad ids that fill up the last window.
        inputs: Corpus files in order.
        shards: MindRecord files in order.
        settings: Reading and cleaning options, for information only.

    Raises:
        ConfigError: Lists all fields that have the wrong type, and counts that do not add up.
    """

    vocabulary: Vocabulary
    seq_length: int
    tokens: int
    documents: int
    windows: int
    remainder: int
    padding: int
    inputs: tuple[InputFile, ...]
    shards: tuple[Shard, ...]
    settings: dict[str, str]
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        validate(self)
        if problems := list(self._contradictions()):
            raise ConfigError(problems)

    def _contradictions(self) -> Iterator[str]:
        if self.format_version not in _READABLE:
            readable = " and ".join(map(str, _READABLE))
            yield f"format_version: {self.format_version}; this program reads {readable}"
        if self.tokens != self.windows * (self.seq_length + 1) + self.remainder - self.padding:
            yield "tokens: differ from windows * (seq_length + 1) + remainder - padding"
        for name, parts in (("tokens", self.inputs), ("documents", self.inputs), ("windows", self.shards)):
            if getattr(self, name) != sum(getattr(part, name) for part in parts):
                yield f"{name}: {getattr(self, name)} is not the sum over its files"
        for file in self.inputs:
            if file.characters is not None and file.characters.missing:
                yield f"inputs: the characters of {quoted(file.path)} do not add up"
            if not 0 <= (file.unknown or 0) <= file.tokens - file.documents:
                yield f"inputs: {quoted(file.path)} cannot have {file.unknown} ids of <unk>"
        for name in (file.name for shard in self.shards for file in (shard.data, shard.index)):
            if not _PLAIN_NAME.fullmatch(name):  # a manifest must not make us open files outside its folder
                yield f"shards: {quoted(name)} is not the name of a file in this folder"
        if self.seq_length < 1 or min(self.windows, self.remainder, self.padding) < 0:
            yield "seq_length must be at least 1, and windows, remainder and padding at least 0"

    @property
    def problems(self) -> dict[str, int]:
        """How often something was skipped, replaced or removed in all inputs, by kind."""
        total: dict[str, int] = {}
        for file in self.inputs:
            for kind, count in file.problems.items():
                total[kind] = total.get(kind, 0) + count
        return total

    @property
    def characters(self) -> CharacterLedger | None:
        """What became of the characters of all inputs; None if they were not counted."""
        ledgers = [file.characters for file in self.inputs if file.characters is not None]
        return total(ledgers) if len(ledgers) == len(self.inputs) else None

    @property
    def unknown(self) -> int | None:
        """Number of <unk> ids in all inputs; None if they were not counted."""
        counts = [file.unknown for file in self.inputs if file.unknown is not None]
        return sum(counts) if len(counts) == len(self.inputs) else None

    @property
    def digest(self) -> str:
        """SHA-256 over ids, order and payload: equal digests mean equal windows in equal order.

        Paths and times of the inputs are left out, because they do not change a window.
        """
        content = [to_mapping(self.vocabulary), self.seq_length, [s.data.sha256 for s in self.shards]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Reads a folder's manifest.

        Raises:
            ValueError: There is no folder or no manifest, or its content is damaged.
        """
        path = Path(folder) / MANIFEST_NAME
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such folder of records; preprocess.py --output makes one")
        if not path.is_file():
            raise ValueError(
                f"{folder}: no {MANIFEST_NAME}, so these records are incomplete; "
                "run the same preprocess.py command again to complete them"
            )
        try:
            return build(cls, read_json(path))
        except (ReadError, ConfigError) as error:
            raise ValueError(f"{shown(path)}: damaged; make the records anew. {error}") from error

    def write(self, folder: str | Path) -> None:
        """Writes manifest.json atomically."""
        write_json(Path(folder) / MANIFEST_NAME, to_mapping(self))


def recorded_name(path: str | Path) -> str:
    """A path as JSON can hold it: bytes of a name that are not UTF-8 are written as escapes like \\xd6."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def name_fault(folder: str | Path) -> str | None:
    """Says why MindRecord cannot use a folder of this name; None if it can."""
    if recorded_name(folder) == str(folder):
        return None
    return f"{folder}: the name is not UTF-8, which MindRecord needs; give a folder with another name"


def verify(folder: str | Path, full: bool = True) -> list[str]:
    """Compares a folder's files with its manifest.

    Args:
        folder: Folder written by preprocess.py.
        full: True reads every byte and compares digests; False compares only sizes.

    Returns:
        One sentence for every file that is missing, truncated or altered; empty if all is well.

    Raises:
        ValueError: The manifest is missing or damaged.
    """
    manifest = Manifest.read(folder)
    files = [file for shard in manifest.shards for file in (shard.data, shard.index)]
    # Threads help here, because hashing and reading release the interpreter lock.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda file: _fault(Path(folder) / file.name, file, full), files)
        return [fault for fault in found if fault]


def _fault(path: Path, expected: FileDigest, full: bool) -> str | None:
    if not path.is_file():
        return f"{path}: missing"
    size = path.stat().st_size
    if size < expected.bytes:
        return f"{path}: truncated, {size:,} bytes of {expected.bytes:,}"
    if size > expected.bytes:
        return f"{path}: grown, {size:,} bytes instead of {expected.bytes:,}"
    if full and FileDigest.of(path).sha256 != expected.sha256:
        return f"{path}: altered, its SHA-256 differs from the manifest's"
    return None


@dataclass(frozen=True)
class Records:
    """A folder of records that has been checked."""

    folder: Path
    manifest: Manifest

    @property
    def files(self) -> list[str]:
        """The MindRecord files in their order."""
        return [str(self.folder / shard.data.name) for shard in self.manifest.shards]

    @property
    def count(self) -> int:
        """Number of windows."""
        return self.manifest.windows

    @property
    def digest(self) -> str:
        """See Manifest.digest."""
        return self.manifest.digest


def open_records(
    folder: str | Path,
    *,
    seq_length: int | None = None,
    vocab_size: int | None = None,
    tokenizer_digest: str | None = None,
    full: bool = True,
) -> Records:
    """Opens records for use by a model, after checking that they are complete and fit the model.

    Args:
        folder: Folder written by preprocess.py.
        seq_length: S of the model; None skips this check.
        vocab_size: Vocabulary size of the model, which may exceed the records'; None skips this check.
        tokenizer_digest: Digest of the tokenizer used with the model; None skips this check.
        full: True reads every byte and compares digests; False compares only sizes.

    Raises:
        ValueError: Lists all reasons why the records cannot be used.
    """
    if fault := name_fault(folder):
        raise ValueError(fault)
    manifest = Manifest.read(folder)
    faults = list(_misfits(manifest, seq_length, vocab_size, tokenizer_digest)) + verify(folder, full)
    if manifest.windows == 0:
        faults.append(f"no window in them: {manifest.tokens} tokens do not fill one; add text")
    if faults:
        raise ValueError("\n  - ".join([f"{folder}: these records cannot be used:", *faults]))
    return Records(Path(folder), manifest)


def _misfits(
    manifest: Manifest, seq_length: int | None, vocab_size: int | None, digest: str | None
) -> Iterator[str]:
    if seq_length is not None and manifest.seq_length != seq_length:
        yield (
            f"made for seq_length {manifest.seq_length}, the model has {seq_length}; "
            f"preprocess again with --seq-length {seq_length}"
        )
    if vocab_size is not None and manifest.vocabulary.size > vocab_size:
        yield (
            f"their vocabulary has {manifest.vocabulary.size} ids, the model only {vocab_size}; "
            "use the model's own tokenizer"
        )
    if digest is not None and manifest.vocabulary.digest != digest:
        yield (
            f"made with another tokenizer (digest {manifest.vocabulary.digest[:12]}, "
            f"not {digest[:12]}); preprocess again with the model's tokenizer"
        )
