"""Reads tensors, or any box of one, from their stored pieces, in bounded memory and with checksums compared.

Knows pieces and bytes, but no form of checkpoint.
"""

from __future__ import annotations

import math
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.tensors import Box, Piece, Stored, spans, whole

_CHUNK = 8 << 20  # bytes read at a time
_OPEN_FILES = 256  # at once, if the system allows a process 1024 or more


class Files:
    """Opens each file once and keeps it open while there is room, for any number of threads.

    Args:
        flags: Flags of os.open.
        root: Folder to which relative paths refer.
    """

    def __init__(self, flags: int = os.O_RDONLY, root: Path = Path()) -> None:
        self._flags, self._root, self._most = flags, root, _most_open()
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, list[int]] = OrderedDict()  # path -> [descriptor, users]

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor, _users in self._open.values():
            os.close(descriptor)
        self._open.clear()

    @contextmanager
    def use(self, path: Path) -> Iterator[int]:
        """Yields the file's descriptor.

        Raises:
            CheckpointError: The file cannot be opened.
        """
        with self._lock:
            if path not in self._open:
                try:
                    self._open[path] = [os.open(self._root / path, self._flags), 0]
                except OSError as error:
                    raise CheckpointError(f"{path}: cannot be opened ({error.strerror})") from error
            entry = self._open[path]
            entry[1] += 1
            self._open.move_to_end(path)
            self._close_idle()
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1

    def _close_idle(self) -> None:
        if len(self._open) <= self._most:
            return
        idle = [path for path, (_, users) in self._open.items() if not users]
        for path in idle[: len(self._open) - self._most]:
            os.close(self._open.pop(path)[0])


def advise(descriptor: int, offset: int, length: int, what: str) -> None:
    """Tells the system which bytes are read soon ("WILLNEED") or no more ("DONTNEED"), except on macOS."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length, getattr(os, f"POSIX_FADV_{what}"))


def _most_open() -> int:
    """Returns a quarter of the open files a process may have: a copy also writes, and is not alone."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_FILES if allowed == resource.RLIM_INFINITY else min(_OPEN_FILES, allowed // 4)


class PieceReader:
    """Reads the rows of one piece in their stored type, and hashes them if they are read in order.

    Args:
        name: The tensor's name, for errors.
        piece: A piece that is not transposed.
        check: Whether all rows will be read in order, so that the checksum can be compared.
    """

    def __init__(self, name: str, piece: Piece, files: Files, check: bool) -> None:
        assert not piece.transposed
        self.name, self.piece, self._files = name, piece, files
        self._digest = xxhash.xxh3_128() if check and piece.checksum else None
        self._dtype = stored_dtype(piece.dtype)
        self._row_bytes = math.prod(piece.box.shape[1:]) * self._dtype.itemsize
        assert sum(length for _, length in piece.extents) == piece.box.shape[0] * self._row_bytes, piece

    def expect(self) -> None:
        """Lets the system fetch the whole piece in the background."""
        with self._files.use(self.piece.file) as descriptor:
            for offset, length in self.piece.extents:
                advise(descriptor, offset, length, "WILLNEED")

    def rows(self, box: Box, into: np.ndarray | None = None) -> np.ndarray:
        """Reads whole rows.

        Args:
            box: Some of the piece's rows at full length.
            into: Contiguous memory of that shape and of the stored type; by default it is allocated.

        Raises:
            CheckpointError: The file is too short, cannot be read, or (noticed after the last row) is
                damaged.
        """
        values = np.empty(box.shape, self._dtype) if into is None else into
        data = values.reshape(-1).view(np.uint8).data
        begin = (box.start[0] - self.piece.box.start[0]) * self._row_bytes
        with self._files.use(self.piece.file) as descriptor:
            for place, first, length in spans(self.piece.extents, begin, len(data)):
                self._read(descriptor, data[first : first + length], place)
        if self._digest is not None:
            self._digest.update(data)
            if box.stop[0] == self.piece.box.stop[0]:
                self._compare(self._digest.hexdigest())
        return values

    def _read(self, descriptor: int, data: memoryview, place: int) -> None:
        while data:
            try:
                count = os.preadv(descriptor, [data], place)
            except OSError as error:
                raise CheckpointError(f"{self.piece.file}: cannot be read ({error.strerror})") from error
            if not count:
                raise CheckpointError(f"{self.piece.file}: {self.name}: cut short at byte {place}")
            data, place = data[count:], place + count

    def _compare(self, found: str) -> None:
        expected = self.piece.checksum
        if found != expected:
            raise CheckpointError(
                f"{self.piece.file}: damaged: {self.name}: expected xxh3_128 {expected}, found {found}"
            )


def read_box(
    stored: Stored, box: Box, dtype: Any = np.float32, verify: bool = True, name: str = "tensor"
) -> np.ndarray:
    """Reads a box of a tensor, whatever pieces the tensor is stored in.

    Args:
        box: The part to read; `tensors.whole(stored.shape)` is all. Elements beyond the tensor are zero.
        dtype: Type of the result.
        verify: Read every piece that overlaps the box completely, and compare the checksums. Otherwise only
            the rows that are needed are read.
        name: The tensor's name, for errors.

    Returns:
        A contiguous array of the box's shape. No more than about 8 MB are held beside it.

    Raises:
        CheckpointError: A file is truncated, damaged or cannot be read, no piece has an element, or a number
            is too large for the type.
    """
    if missing := stored.missing(box):
        raise CheckpointError(
            f"{_place(stored)}{name}: {missing:,} elements of {box} are in none of the opened files"
        )
    if is_transposed(stored):
        flipped = read_box(stored.flipped, box.flipped, dtype, verify, name)
        return np.ascontiguousarray(flipped.T)
    values = np.zeros(box.shape, dtype)
    inside = whole(stored.shape).intersect(box)
    with Files() as files:
        for piece in stored.pieces:
            wanted = inside and piece.box.intersect(inside)
            if wanted:
                reader = PieceReader(name, piece, files, verify)
                checked = verify and piece.checksum
                for rows in row_boxes(piece.box if checked else _full_rows(piece.box, wanted), _CHUNK // 4):
                    read, common = reader.rows(rows), rows.intersect(wanted)
                    if common:
                        part = convert(read[common.within(rows)], piece.dtype, dtype, name)
                        values[common.within(box)] = part
    return values


def _place(stored: Stored) -> str:
    """Returns the folder around a tensor's pieces, for errors about missing elements."""
    return f"{stored.pieces[0].file.parent}: " if stored.pieces else ""


def row_boxes(box: Box, elements: int) -> Iterator[Box]:
    """Cuts a box into consecutive runs of rows of about the given number of elements each."""
    step = max(1, elements // max(1, math.prod(box.shape[1:])))
    for first in range(box.start[0], box.stop[0], step):
        count = min(step, box.stop[0] - first)
        yield Box((first, *box.start[1:]), (count, *box.shape[1:]))


def is_transposed(stored: Stored) -> bool:
    """Whether the pieces hold the transpose."""
    found = {piece.transposed for piece in stored.pieces}
    assert len(found) < 2, "pieces of one tensor are all transposed or none is"
    return True in found


def stored_dtype(name: str) -> np.dtype:
    """Returns numpy's type for the bytes of a stored type; uint16 for bfloat16, which numpy lacks."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def convert(values: np.ndarray, stored: str, dtype: Any, name: str = "tensor") -> np.ndarray:
    """Converts numbers to another type.

    Args:
        values: Numbers as read, of type `stored_dtype(stored)`.
        stored: Name of the stored type.
        dtype: numpy's type to convert to.
        name: The tensor's name, for errors.

    Raises:
        CheckpointError: A finite number is beyond the largest one of the type.
    """
    dtype = np.dtype(dtype)
    if stored == "bfloat16":  # bfloat16 is the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        made = values.astype(dtype)
    if dtype.itemsize < values.dtype.itemsize and not np.array_equal(np.isfinite(made), np.isfinite(values)):
        largest = np.abs(values[np.isfinite(values)]).max()
        raise CheckpointError(
            f"{name}: {largest} is beyond the largest {dtype.name}; keep {values.dtype.name}"
        )
    return made


def coverage_problems(name: str, stored: Stored) -> list[str]:
    """Returns which elements of a tensor are in no piece or in several; empty if each is in exactly one."""
    boxes = [box for piece in stored.pieces if (box := piece.box.intersect(whole(stored.shape)))]
    axes = []
    for axis, size in enumerate(stored.shape):
        begins = {box.start[axis] for box in boxes}
        axes.append(sorted({0, size, *begins, *(box.start[axis] + box.shape[axis] for box in boxes)}))
    counts = _count(boxes, axes)
    return [] if (counts == 1).all() else _describe_cells(name, stored, axes, counts)


def _count(boxes: Sequence[Box], axes: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns how many boxes cover each cell of the grid that their edges form."""
    place = [{edge: index for index, edge in enumerate(edges)} for edges in axes]
    counts = np.zeros([len(edges) - 1 for edges in axes], np.int64)
    for box in boxes:
        stops = map(int.__add__, box.start, box.shape)
        counts[tuple(slice(at[a], at[b]) for at, a, b in zip(place, box.start, stops, strict=True))] += 1
    return counts


def _describe_cells(
    name: str, stored: Stored, axes: Sequence[Sequence[int]], counts: np.ndarray
) -> list[str]:
    problems = []
    for cell in np.argwhere(counts != 1)[:4]:
        start = tuple(edges[i] for edges, i in zip(axes, cell, strict=True))
        stop = tuple(edges[i + 1] for edges, i in zip(axes, cell, strict=True))
        box = Box(start, tuple(b - a for a, b in zip(start, stop, strict=True)))
        holders = [piece.label or piece.file.name for piece in stored.pieces if piece.box.intersect(box)]
        where = ", ".join(f"{a}:{b}" for a, b in zip(start, stop, strict=True))
        said = f"twice, in {', '.join(holders)}" if holders else "in no piece"
        problems.append(f"{name}[{where}] of {list(stored.shape)} is {said}")
    return problems


def _full_rows(box: Box, wanted: Box) -> Box:
    """Returns the rows of a box that a part of it touches, at full length."""
    return Box((wanted.start[0], *box.start[1:]), (wanted.shape[0], *box.shape[1:]))
