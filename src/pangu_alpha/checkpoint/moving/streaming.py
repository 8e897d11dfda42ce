"""Copies one tensor from its stored pieces to its new ones: runs of rows, read once, hashed on both sides.

Knows pieces and bytes; copying.py handles files, threads and what is already done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import xxhash

from pangu_alpha.checkpoint.moving.reading import (
    Files,
    PieceReader,
    convert,
    is_transposed,
    row_boxes,
    stored_dtype,
)
from pangu_alpha.checkpoint.tensors import Box, Piece, Stored, spans, whole
from pangu_alpha.files.writing import write_all_at

CHUNK = 8 << 20  # bytes of a tensor handled at a time, if it need not be transposed
_AHEAD = 256 << 20  # largest tensor whose pieces are prefetched; larger ones have long pieces anyway
_TILE = 64  # rows and columns transposed at a time, so that a tile of both arrays stays in the cache


class Route:
    """The pieces of one tensor in source and target, oriented so that the source is not transposed.

    Args:
        name: The tensor's name, for errors.
        stored: The tensor in the source.
        targets: The pieces to write, of any boxes.
    """

    def __init__(self, name: str, stored: Stored, targets: Sequence[Piece]) -> None:
        wanted = Stored(stored.shape, tuple(targets))
        if is_transposed(stored):
            stored, wanted = stored.flipped, wanted.flipped
        self.name, self.stored, self.targets = name, stored, wanted.pieces
        pieces = (*stored.pieces, *self.targets)
        kinds = {piece.dtype for piece in pieces}
        # Type of the numbers between reading and writing: float32 if they have to be converted.
        self.kind = kinds.pop() if len(kinds) == 1 else "float32"
        self.dtype = stored_dtype(self.kind)
        stops = zip(stored.shape, *(piece.box.stop for piece in pieces), strict=True)
        self.bounds = whole([max(sizes) for sizes in stops])

    @property
    def bytes(self) -> int:
        """Size of the tensor in memory, with padding."""
        return self.bounds.size * self.dtype.itemsize

    @property
    def turns(self) -> bool:
        """Whether rows of the source are columns of a target."""
        return any(piece.transposed for piece in self.targets)


def stream(
    route: Route, sources: Files, targets: Files, buffer: np.ndarray, moved: Callable[[int], None]
) -> list[str]:
    """Copies a tensor.

    Args:
        route: Source and target; the target's files exist.
        sources: Opens the source's files.
        targets: Opens the target's files, to read and to write.
        buffer: Memory for the longest run of rows held at a time, which is at least one row.
        moved: Called with the bytes of each finished run; may raise to end the copy.

    Returns:
        The xxh3_128 of every target piece.

    Raises:
        CheckpointError: The source is damaged, truncated, cannot be read, or has numbers beyond the target's
            type.
        OSError: The target cannot be written.
    """
    readers = [PieceReader(route.name, piece, sources, check=True) for piece in route.stored.pieces]
    if route.bytes <= _AHEAD:
        for reader in readers:
            reader.expect()
    writers = [PieceWriter(route.name, piece, targets) for piece in route.targets]
    elements = buffer.nbytes // route.dtype.itemsize
    runs = [*row_boxes(route.bounds, elements)]
    reading = _by_run(runs, [reader.piece.box for reader in readers])
    writing = _by_run(runs, [writer.piece.box for writer in writers])
    for number, rows in enumerate(runs):
        values = _room(buffer, rows, route.dtype)
        for index in reading[number]:
            _gather(readers[index], rows, values, route)
        _clear_padding(values, rows, route.stored.shape)
        for index in writing[number]:
            writers[index].write(values, route.kind, rows)
        moved(values.nbytes)
    return [writer.checksum() for writer in writers]


class PieceWriter:
    """Writes one piece of a tensor from the tensor's rows, which come in order, and hashes it.

    Args:
        name: The tensor's name, for errors.
        piece: The place to write to.
        files: Opens its file, to read and to write.
    """

    def __init__(self, name: str, piece: Piece, files: Files) -> None:
        self._name, self.piece, self._files = name, piece, files
        self._digest = xxhash.xxh3_128()
        self._in_strips = False
        self._item = stored_dtype(piece.dtype).itemsize

    def write(self, values: np.ndarray, kind: str, rows: Box) -> None:
        """Writes the part of a run of the tensor's rows that belongs to the piece.

        Args:
            values: The values of the rows.
            kind: Name of their type.
            rows: The box of the run in the tensor.
        """
        box = self.piece.box
        common = box.intersect(rows)
        assert common is not None, f"{self._name}: {rows} has nothing of {box}"
        part = values[common.within(rows)]
        if kind != self.piece.dtype:
            part = convert(part, kind, self.piece.dtype, self._name)
        first = common.start[0] - box.start[0]
        if not self.piece.transposed:
            self._put(part, first * math.prod(box.shape[1:]) * self._item)
        elif common.shape[0] == box.shape[0]:
            self._put(_turned(part), 0)
        else:  # too large to be transposed at once: a run of rows is a strip of each row in the file
            self._in_strips = True
            for number, strip in enumerate(_turned(part)):
                self._put_at(strip, (number * box.shape[0] + first) * self._item)

    def checksum(self) -> str:
        """Returns the xxh3_128 of the piece's bytes; a piece written in strips is read again for it."""
        if self._in_strips:
            flat = Piece(
                whole((self.piece.box.size * self._item,)), self.piece.file, self.piece.extents, "uint8"
            )
            reader = PieceReader(self._name, flat, self._files, check=False)
            for run in row_boxes(flat.box, CHUNK):
                self._digest.update(reader.rows(run).data)
        return self._digest.hexdigest()

    def _put(self, values: np.ndarray, begin: int) -> None:
        values = np.ascontiguousarray(values)
        self._digest.update(values.reshape(-1).view(np.uint8).data)
        self._put_at(values, begin)

    def _put_at(self, values: np.ndarray, begin: int) -> None:
        data = values.reshape(-1).view(np.uint8).data
        with self._files.use(self.piece.file) as descriptor:
            for place, first, length in spans(self.piece.extents, begin, len(data)):
                write_all_at(descriptor, data[first : first + length], place)


def _gather(reader: PieceReader, rows: Box, values: np.ndarray, route: Route) -> None:
    """Reads the part of a run of rows that a piece holds."""
    box, kind = reader.piece.box, reader.piece.dtype
    common = box.intersect(rows)
    assert common is not None  # because the piece overlaps these rows
    target = values[common.within(rows)]
    if kind == route.kind and target.flags.c_contiguous:
        reader.rows(common, into=target)
        return
    for run in row_boxes(common, CHUNK // 4):
        part = reader.rows(run)
        if kind != route.kind:
            part = convert(part, kind, route.dtype, route.name)
        target[run.within(common)] = part


def _by_run(runs: Sequence[Box], boxes: Sequence[Box]) -> list[list[int]]:
    """Returns, for each run of rows, the boxes that overlap it; all runs but the last have one length."""
    found: list[list[int]] = [[] for _ in runs]
    for index, box in enumerate(boxes):
        if box.size:
            step = runs[0].shape[0]
            for number in range(box.start[0] // step, (box.stop[0] - 1) // step + 1):
                found[number].append(index)
    return found


def _room(buffer: np.ndarray, rows: Box, dtype: np.dtype) -> np.ndarray:
    size = rows.size * dtype.itemsize
    if size > buffer.nbytes:  # a single row is longer than the buffer
        return np.empty(rows.shape, dtype)
    return buffer[:size].view(dtype).reshape(rows.shape)


def _clear_padding(values: np.ndarray, rows: Box, shape: Sequence[int]) -> None:
    for axis, (start, stop, size) in enumerate(zip(rows.start, rows.stop, shape, strict=True)):
        if stop > size:
            values[(slice(None),) * axis + (slice(max(0, size - start), None),)] = 0


def _turned(values: np.ndarray) -> np.ndarray:
    """Returns the transpose as a contiguous array."""
    made = np.empty(values.shape[::-1], values.dtype)
    for first in range(0, values.shape[0], _TILE):
        for second in range(0, values.shape[1], _TILE):
            tile = values[first : first + _TILE, second : second + _TILE]
            made[second : second + _TILE, first : first + _TILE] = tile.T
    return made
