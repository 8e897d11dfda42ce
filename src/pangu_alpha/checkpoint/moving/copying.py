"""Writes files of any layout from a source's tensors: in bounded memory, verified, resumable after a kill.

Knows no form of checkpoint: a `TargetFile` describes a file, pieces describe the tensors.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash
from tqdm import tqdm

from pangu_alpha.checkpoint.moving.reading import Files, advise, coverage_problems
from pangu_alpha.checkpoint.moving.resumable import ResumableFolder
from pangu_alpha.checkpoint.moving.streaming import CHUNK, Route, stream
from pangu_alpha.checkpoint.native.tensor_file import (
    CheckpointError,
    FileRecord,
    TensorRecord,
    checksum,
    header_of,
)
from pangu_alpha.checkpoint.tensors import Box, Piece, Source
from pangu_alpha.files.paths import is_real_folder
from pangu_alpha.files.writing import durable_file, sync_folder, write_all_at

_FLUSH = 256 << 20  # bytes written between two flushes to disk, after each of which a copy can resume
_PROCESS = 128 << 20  # bytes that the interpreter and libraries need
_PIECE = 1200  # bytes for the description of a piece, twice the measured size
_MARGIN = 1 << 20  # bytes on disk for manifests and the file system's own tables


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a tensor's box in a file to be written.

    Args:
        stem: "model" or "optimizer".
        name: The tensor's name in the source.
        box: The part of the tensor; whatever lies beyond the tensor is written as zeros.
        extents: Offset and length of its bytes in the file, in order. Unit: bytes.
        dtype: numpy's name of the type to write.
        transposed: Whether the box's transpose is written.
        label: The tensor's name in the file.
    """

    stem: str
    name: str
    box: Box
    extents: tuple[tuple[int, int], ...] = ()
    dtype: str = "float32"
    transposed: bool = False
    label: str = ""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the array in the file."""
        return self.box.shape[::-1] if self.transposed else self.box.shape

    @property
    def bytes(self) -> int:
        """Number of bytes of the array in the file."""
        return self.box.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class TargetFile:
    """A file to be made.

    Args:
        path: Relative to the target's folder.
        size: Unit: bytes.
        literals: Bytes that are known beforehand, with their offsets.
        slots: The tensors that make up the rest of the file.
    """

    path: Path
    size: int
    literals: tuple[tuple[int, bytes], ...]
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Limits:
    """The resources that a copy may use.

    Args:
        budget: Memory of the whole process. Unit: bytes.
        workers: Number of threads, each of which copies a tensor.
        progress: Whether a progress bar is shown.
    """

    budget: int = 2_000_000_000
    workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    progress: bool = True


Sums = Mapping[Path, Sequence[str]]  # xxh3_128 of a file's slots, in their order


def safetensors_file(path: Path, slots: Iterable[Slot]) -> TargetFile:
    """Lays out a safetensors file of slots under their labels, and fills in their extents."""
    slots = tuple(slots)
    header, begins = header_of({slot.label: (slot.stored_shape, slot.dtype) for slot in slots})
    placed = tuple(dataclasses.replace(slot, extents=((begins[slot.label], slot.bytes),)) for slot in slots)
    return TargetFile(path, len(header) + sum(slot.bytes for slot in slots), ((0, header),), placed)


def file_record(file: TargetFile, sums: Sequence[str]) -> FileRecord:
    """Returns a manifest's record of a safetensors file from the checksums of its slots."""
    tensors = {
        slot.label: TensorRecord(slot.stored_shape, slot.dtype, found)
        for slot, found in zip(file.slots, sums, strict=True)
    }
    return FileRecord(file.size, checksum(file.literals[0][1]), tensors)


def copy_into(
    path: Path,
    source: Source,
    files: Sequence[TargetFile],
    finish: Callable[[Path, Sums], None] | None = None,
    limits: Limits | None = None,
    only: str | None = None,
) -> None:
    """Makes a checkpoint of files from a source's tensors; after a kill, the same call resumes.

    Args:
        path: What to make; .merging-NAME lies beside it until it is complete.
        files: The files to write.
        finish: Writes the other files of the folder, such as manifests, and flushes them to disk. Gets the
            folder and the slots' checksums.
        only: The one file of the folder that becomes `path`; None makes `path` a folder.

    Raises:
        CheckpointError: The source is damaged or incomplete, the target exists or is being written, the disk
            is full or fails, or the budget is too small. `path` does not exist then; what was done stays
            beside it for the next call.
        KeyboardInterrupt: The user stopped the copy; the message says how to resume.
    """
    limits = limits or Limits()
    tasks = _tasks(source, files)
    room = _room(tasks, limits)
    folder = ResumableFolder(Path(path), _digest(source, files), only)
    if folder.is_finished():
        return
    try:
        with folder.open() as begun:
            _lay_out(folder, files, begun)
            total = sum(task.route.bytes for task in tasks)
            with tqdm(
                total=total, desc=path.name, unit="B", unit_scale=True, disable=not limits.progress
            ) as bar:
                _Copier(folder, limits.workers, room, bar).run(tasks)
            if finish is not None:
                finish(folder.content, _sums(folder, tasks, files))
            folder.publish()
    except OSError as error:
        raise CheckpointError(f"{path}: not written: {_explain(error, folder)}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{path}: interrupted; what was done is kept: the same command goes on from there"
        ) from None


class _Task:
    """The copy of one tensor from the source into all its slots.

    Args:
        slots: For each slot its file and its number in the file.
    """

    def __init__(self, stem: str, name: str, source: Source, slots: Sequence[tuple[TargetFile, int]]) -> None:
        self.key = f"{stem}/{name}"
        self.places = [(file.path, number) for file, number in slots]
        targets = []
        for file, number in slots:
            slot = file.slots[number]
            targets.append(Piece(slot.box, file.path, slot.extents, slot.dtype, slot.transposed))
        self.route = Route(name, source.tensors[stem][name], targets)


class _Copier:
    """Copies tensors, one per thread; finished ones are flushed and recorded in batches during the copying.

    Args:
        folder: The scratch folder with its journal.
        workers: Number of threads.
        room: Bytes of a tensor that a thread may hold in order to transpose it.
        bar: Shows the bytes done.
    """

    def __init__(self, folder: ResumableFolder, workers: int, room: int, bar: tqdm) -> None:
        self._folder, self._room, self._bar = folder, room, bar
        self._sources, self._targets = Files(), Files(os.O_RDWR, folder.content)
        self._lock, self._own, self._stop = threading.Lock(), threading.local(), threading.Event()
        self._pool, self._flusher = ThreadPoolExecutor(workers), ThreadPoolExecutor(1)
        self._flushes: list[Future[None]] = []
        self._batch: list[tuple[_Task, list[str]]] = []
        self._waiting, self._lost = 0, False

    def run(self, tasks: Sequence[_Task]) -> None:
        """Copies the tensors that are not done yet. The first error ends it; finished ones are recorded."""
        left = [task for task in tasks if task.key not in self._folder.done]
        self._bar.update(sum(task.route.bytes for task in tasks) - sum(task.route.bytes for task in left))
        with self._sources, self._targets, self._flusher, self._pool:
            # The largest tensors first, so that all threads are busy until the end.
            jobs = [
                self._pool.submit(self._one, task)
                for task in sorted(left, key=lambda task: -task.route.bytes)
            ]
            try:
                for job in as_completed(jobs):
                    if not isinstance(job.exception(), _Stopped):
                        job.result()
            finally:
                self._stop.set()
                self._pool.shutdown(cancel_futures=True)
                self._flush_later()
                for flush in self._flushes:
                    flush.result()

    def _one(self, task: _Task) -> None:
        self._moved(0)
        try:
            sums = stream(task.route, self._sources, self._targets, self._buffer(task.route), self._moved)
        except (CheckpointError, OSError):
            self._stop.set()  # the other threads need not finish their tensors
            raise
        with self._lock:
            self._batch.append((task, sums))
            self._waiting += task.route.bytes
            if self._waiting >= _FLUSH:
                self._flush_later()

    def _buffer(self, route: Route) -> np.ndarray:
        """Returns this thread's buffer, which grows to the size that its largest tensor needs."""
        wanted = min(route.bytes, max(self._room, CHUNK)) if route.turns else CHUNK
        kept = getattr(self._own, "buffer", None)
        if kept is None or kept.nbytes < wanted:
            self._own.buffer = kept = None  # frees the old buffer before the new one is made
            self._own.buffer = kept = np.empty(wanted, np.uint8)
        return kept[:wanted]

    def _moved(self, count: int) -> None:
        if self._stop.is_set():
            raise _Stopped
        for flush in self._flushes[-1:]:
            if flush.done():
                flush.result()  # a failed flush ends the copy now
        with self._lock:
            self._bar.update(count)

    def _flush_later(self) -> None:
        batch, self._batch, self._waiting = self._batch, [], 0
        if batch:
            self._flushes.append(self._flusher.submit(self._flush, batch))

    def _flush(self, batch: Sequence[tuple[_Task, list[str]]]) -> None:
        if self._lost:
            return  # the system reports lost bytes once: a later successful flush proves nothing
        self._lost = True
        for path in sorted({path for task, _ in batch for path, _ in task.places}):
            with self._targets.use(path) as descriptor:
                os.fsync(descriptor)
                # Frees page cache that is not needed soon. Measured: 10 to 30 % faster.
                advise(descriptor, 0, 0, "DONTNEED")
        self._folder.record({task.key: sums for task, sums in batch})
        self._lost = False


class _Stopped(Exception):  # noqa: N818
    """Another thread has failed, or the user has stopped the program."""


def _tasks(source: Source, files: Sequence[TargetFile]) -> list[_Task]:
    """Returns one task for each tensor that the files hold, in the order of the source.

    Raises:
        CheckpointError: The source lacks a tensor or a part of one, or has a part twice.
    """
    slots: dict[tuple[str, str], list[tuple[TargetFile, int]]] = {}
    for file in files:
        for number, slot in enumerate(file.slots):
            slots.setdefault((slot.stem, slot.name), []).append((file, number))
    problems = []
    for stem, name in slots:
        stored = source.tensors.get(stem, {}).get(name)
        problems += [f"{name}: missing"] if stored is None else coverage_problems(name, stored)
    if problems:
        shown = problems[:20] + [f"and {len(problems) - 20} more"] * (len(problems) > 20)
        raise CheckpointError("\n  - ".join([f"{source.path}: not whole, nothing was written:", *shown]))
    return [_Task(stem, name, source, places) for (stem, name), places in slots.items()]


def _room(tasks: Sequence[_Task], limits: Limits) -> int:
    """Returns the bytes of a tensor that a thread may hold.

    A transposition holds them twice, and a chunk is read beside them.
    """
    if limits.workers < 1:
        raise CheckpointError(f"workers: {limits.workers} must be at least 1")
    pieces = sum(len(task.route.stored.pieces) + len(task.route.targets) for task in tasks)
    fixed = _PROCESS + pieces * _PIECE
    room = (limits.budget - fixed) // limits.workers // 2 - CHUNK
    if room < CHUNK:
        least = fixed + limits.workers * 4 * CHUNK
        raise CheckpointError(
            f"budget: {limits.budget:,} bytes are too few for {limits.workers} workers and {pieces:,} "
            f"pieces; give at least {least:,}"
        )
    return room


def _digest(source: Source, files: Sequence[TargetFile]) -> str:
    """Returns a digest of everything that determines a byte of this copy.

    That is the state of the source's files, the place of each tensor in them (another strategy reads the same
    files differently), and the content of every target file.
    """
    digest = xxhash.xxh3_128(repr(source.manifest).encode())
    numbers: dict[Path, int] = {}
    for stem, group in source.tensors.items():
        for name, stored in group.items():
            digest.update(repr((stem, name, stored.shape)).encode())
            for piece in stored.pieces:
                if piece.file not in numbers:
                    numbers[piece.file] = len(numbers)
                    state = piece.file.stat()
                    version = (str(piece.file.absolute()), state.st_size, state.st_mtime_ns)
                    digest.update(repr(version).encode())
                place = (numbers[piece.file], *piece.box, piece.extents, piece.dtype, piece.transposed)
                digest.update(repr((*place, piece.checksum)).encode())
    for file in files:
        digest.update(repr((str(file.path), file.size, file.literals)).encode())
        for slot in file.slots:
            target = (slot.stem, slot.name, *slot.box, slot.extents, slot.dtype, slot.transposed, slot.label)
            digest.update(repr(target).encode())
    return digest.hexdigest()


def _lay_out(folder: ResumableFolder, files: Sequence[TargetFile], begun: bool) -> None:
    """Creates the files at their final sizes with their literals, or checks that an earlier run did so."""
    content = folder.content
    if begun:
        known = {content / file.path for file in files}
        for path in [path for path in content.rglob("*") if path.is_file() and path not in known]:
            path.unlink()  # left by a `finish` that was killed
        if not all(_is_real_file(content, file.path) for file in files):
            raise CheckpointError(f"{folder.scratch}: files are missing in it; remove it and run again")
        return
    needed = sum(file.size for file in files) + _MARGIN
    if shutil.disk_usage(folder.scratch).free < needed:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes needed")
    for file in files:
        target = content / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with durable_file(target) as descriptor:
            os.ftruncate(descriptor, file.size)
            for offset, data in file.literals:
                write_all_at(descriptor, data, offset)
    for made in {content, *(content / file.path.parent for file in files)}:
        sync_folder(made)
    folder.begin()


def _is_real_file(content: Path, path: Path) -> bool:
    """Whether a regular file lies at a path, with no link on the way."""
    around = (content / parent for parent in path.parents)
    return all(map(is_real_folder, around)) and stat.S_ISREG(os.lstat(content / path).st_mode)


def _sums(folder: ResumableFolder, tasks: Sequence[_Task], files: Sequence[TargetFile]) -> Sums:
    found = {file.path: [""] * len(file.slots) for file in files}
    for task in tasks:
        for (path, number), value in zip(task.places, folder.done[task.key], strict=True):
            found[path][number] = value
    return found


def _explain(error: OSError, folder: ResumableFolder) -> str:
    said = f"{error.strerror} ({error.filename or folder.path.parent})"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return said
    free = shutil.disk_usage(folder.path.parent).free  # its parent, since the scratch folder may be gone
    return f"{said}, {free:,} free; make room and run the same command again: what was done is kept"
