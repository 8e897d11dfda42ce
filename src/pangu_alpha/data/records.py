"""Writes windows of token ids as MindRecord files: column `input_ids`, int32 [S + 1].

A shard holds windows [k * windows_per_shard, ...) of the stream, so the files do not depend on the number of
processes that write them. Memory is O(_BLOCK * S). MindSpore is imported only where a file is written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.config.schema import ConfigError, build, to_mapping
from pangu_alpha.data.manifest import FileDigest, Shard
from pangu_alpha.data.packing import TokenStream, read_windows
from pangu_alpha.files.reading import ReadError, read_json
from pangu_alpha.files.writing import write_json
from pangu_alpha.processes.workers import Advance

COLUMN = "input_ids"
INDEX_SUFFIX = ".db"

# Number of windows passed to the writer at once.
_BLOCK = 2048
# MindSpore 2.9 reads files together only if their pages and headers have equal sizes. These are constants
# because the sources of a mixture may be large or small. The smallest file takes 1.1 MB, instead of 48 MB
# with MindRecord's defaults.
_PAGE_BYTES = 1 << 20
_HEADER_BYTES = 1 << 17
# The header describes every page in up to 230 bytes of JSON (MindSpore 2.9), which limits their number.
_MAX_PAGES = 512


def max_windows(seq_length: int) -> int:
    """Number of windows that fit in a MindRecord file of about 500 MB; 0 if a page cannot hold one window.

    MindRecord stores an int32 in at most 4 bytes and 2 bits.
    """
    row = (seq_length + 1) * 17 // 4 + 64
    return _PAGE_BYTES // row * _MAX_PAGES


def shard_name(place: int) -> str:
    """File name of a shard."""
    return f"windows-{place:05d}.mindrecord"


@dataclass(frozen=True)
class ShardJob:
    """One MindRecord file to be written.

    Args:
        tokens: Token files of the whole stream, in order.
        dtype: Element type of the token files, as numpy spells it.
        seq_length: S.
        pad_id: Id that fills up the last window of the stream.
        first: First window of the shard.
        last: Window after its last one.
    """

    tokens: tuple[Path, ...]
    dtype: str
    seq_length: int
    pad_id: int
    first: int
    last: int
    target: Path

    @property
    def receipt(self) -> Path:
        """File that keeps the digests of the finished shard until the manifest is written."""
        return self.tokens[0].parent / f"{self.target.name}.json"


def write_shard(job: ShardJob, advance: Advance) -> Shard:
    """Writes one shard, unless an earlier run has; the target file appears only when it is complete.

    Returns:
        The shard's file names, sizes and digests.
    """
    finished = _finished(job)
    if finished is not None:
        advance(finished.windows, finished.windows * (job.seq_length + 1))
        return finished
    # A MindRecord file contains its own name, so it is made under its final name in another folder.
    folder = job.tokens[0].parent / f"{job.target.name}.partial"
    folder.mkdir(exist_ok=True)
    made = folder / job.target.name
    for stale in (made, job.target):
        _remove(stale)
    _write_windows(job, made, advance)
    for path in (made, _index(made)):
        shutil.copymode(job.tokens[0], path)  # MindSpore 2.9 makes them readable only for their owner
        _flush(path)  # after a power cut, the receipt must not exist without the file it describes
    shard = Shard(FileDigest.of(made), FileDigest.of(_index(made)), job.last - job.first)
    write_json(job.receipt, to_mapping(shard))  # before the target, so that every target has a receipt
    os.replace(_index(made), _index(job.target))
    os.replace(made, job.target)
    folder.rmdir()
    return shard


def remove_leftovers(folder: Path, shards: Sequence[Shard]) -> None:
    """Removes receipts, half-written files, and shards that an interrupted run left from other inputs.

    Args:
        folder: Folder of the receipts; the finished shards are in the folder above it.
        shards: Shards to keep.
    """
    kept = {shard.data.name for shard in shards}
    for receipt in folder.glob("windows-*.mindrecord.json"):
        shard = folder.parent / receipt.name.removesuffix(".json")
        if shard.name not in kept:
            _remove(shard)
        receipt.unlink()
    for partial in folder.glob("windows-*.mindrecord.partial"):
        _remove(partial / partial.name.removesuffix(".partial"))
        if not any(partial.iterdir()):
            partial.rmdir()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _index(path).unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _index(path: Path) -> Path:
    return path.with_name(path.name + INDEX_SUFFIX)


def _finished(job: ShardJob) -> Shard | None:
    if not job.receipt.is_file():
        return None
    try:
        shard = build(Shard, read_json(job.receipt))
    except (ConfigError, ReadError):
        return None  # the receipt is damaged, so the shard is written again
    newest = max(file.stat().st_mtime_ns for file in job.tokens)
    whole = all(
        path.is_file() and path.stat().st_size == file.bytes
        for path, file in ((job.target, shard.data), (_index(job.target), shard.index))
    )
    return shard if whole and job.receipt.stat().st_mtime_ns >= newest else None


def _write_windows(job: ShardJob, path: Path, advance: Advance) -> None:
    from mindspore.mindrecord import FileWriter  # here, because the import takes seconds

    stream = TokenStream(job.tokens, job.dtype)
    writer = FileWriter(str(path), shard_num=1)
    writer.set_header_size(_HEADER_BYTES)
    writer.set_page_size(_PAGE_BYTES)
    writer.add_schema({COLUMN: {"type": "int32", "shape": [job.seq_length + 1]}}, "windows of token ids")
    for first in range(job.first, job.last, _BLOCK):
        last = min(first + _BLOCK, job.last)
        windows = read_windows(stream, first, last, job.seq_length, job.pad_id)
        _attempt(writer.write_raw_data, path, [{COLUMN: window} for window in windows])
        advance(len(windows), windows.size)
    _attempt(writer.commit, path)


def _attempt(method: Callable, path: Path, *arguments: object) -> None:
    try:
        method(*arguments)
    except RuntimeError as error:  # MindSpore 2.9 reports a full disk as "unexpected error"
        raise OSError(f"{path}: MindRecord cannot write it; is the disk full? {error}") from error
