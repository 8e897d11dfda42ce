"""Windows of token ids written as MindRecord files: column `input_ids`, int32 [S + 1].

A shard is windows [k * windows_per_shard, ...) of the stream, so the files do not depend on the number of
processes that write them. Memory O(_BLOCK * S). MindSpore is imported where a file is written.
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
from pangu_alpha.data.workers import Advance
from pangu_alpha.files.reading import ReadError, read_json
from pangu_alpha.files.writing import write_json

COLUMN = "input_ids"
INDEX_SUFFIX = ".db"

# Windows handed to the writer at once.
_BLOCK = 2048
# MindSpore reads files together only if their pages and headers are of one size, so these are constants: the
# sources of a mixture may be large or small. The smallest file has 1.1 MB; with MindRecord's defaults, 48 MB.
_PAGE_BYTES = 1 << 20
_HEADER_BYTES = 1 << 17
# The header describes every page, in up to 230 bytes of JSON (MindSpore 2.9).
_MAX_PAGES = 512


def max_windows(seq_length: int) -> int:
    """Windows that fit in one MindRecord file, about 500 MB; 0 where a page cannot hold one window.

    MindRecord stores an int32 in 4 bytes and 2 bits at most.
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
        dtype: Their element type, as numpy spells it.
        seq_length: S.
        pad_id: Fills up the last window of the stream.
        first: First window of the shard.
        last: Window after its last one.
        target: Path of the file.
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
        """Where the digests of the finished file wait for the manifest."""
        return self.tokens[0].parent / f"{self.target.name}.json"


def write_shard(job: ShardJob, advance: Advance) -> Shard:
    """Writes one shard, or finds it written by an earlier run; the target appears only when it is whole.

    Returns:
        Its names, sizes and digests.
    """
    finished = _finished(job)
    if finished is not None:
        advance(finished.windows, finished.windows * (job.seq_length + 1))
        return finished
    # A MindRecord file holds its own name, so it is made under that name in another folder.
    folder = job.tokens[0].parent / f"{job.target.name}.partial"
    folder.mkdir(exist_ok=True)
    made = folder / job.target.name
    for stale in (made, job.target):
        _remove(stale)
    _write_windows(job, made, advance)
    for path in (made, _index(made)):
        shutil.copymode(job.tokens[0], path)  # MindRecord lets nobody but the owner read its files
        _flush(path)  # the receipt below must not outlive it in a power cut
    shard = Shard(FileDigest.of(made), FileDigest.of(_index(made)), job.last - job.first)
    write_json(job.receipt, to_mapping(shard))  # before the target, so that every target has one
    os.replace(_index(made), _index(job.target))
    os.replace(made, job.target)
    folder.rmdir()
    return shard


def remove_leftovers(folder: Path, shards: Sequence[Shard]) -> None:
    """Removes receipts, half-written files, and shards that an interrupted run of older inputs finished.

    Args:
        folder: Where the receipts lie; the finished shards are in the folder above.
        shards: Those that stay.
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
        return None  # not one of ours any more: write the shard anew
    newest = max(file.stat().st_mtime_ns for file in job.tokens)
    whole = all(
        path.is_file() and path.stat().st_size == file.bytes
        for path, file in ((job.target, shard.data), (_index(job.target), shard.index))
    )
    return shard if whole and job.receipt.stat().st_mtime_ns >= newest else None


def _write_windows(job: ShardJob, path: Path, advance: Advance) -> None:
    from mindspore.mindrecord import FileWriter  # heavy

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
    except RuntimeError as error:  # all that MindRecord says of a full disk is "unexpected error"
        raise OSError(f"{path}: MindRecord cannot write it; is the disk full? {error}") from error
