"""Boxes and pieces: which part of which tensor lies where in which file. Opens no file.

Every reader of checkpoints returns these descriptions and every writer takes them, so that any form can be
converted into any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pangu_alpha.checkpoint.native.format import Manifest


class Box(NamedTuple):
    """A rectangular part of a tensor.

    Args:
        start: First index along each dimension; there is at least one dimension.
        shape: Length along each dimension.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def stop(self) -> tuple[int, ...]:
        """The index after the last one along each dimension."""
        return tuple(start + size for start, size in zip(self.start, self.shape, strict=True))

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def flipped(self) -> Box:
        """The same part of the transpose."""
        return Box(self.start[::-1], self.shape[::-1])

    def intersect(self, other: Box) -> Box | None:
        """Returns the overlap of two boxes of one tensor, or None if they do not overlap."""
        start = tuple(map(max, self.start, other.start))
        shape = tuple(map(_length, start, self.start, self.shape, other.start, other.shape))
        return Box(start, shape) if min(shape) > 0 else None

    def within(self, outer: Box) -> tuple[slice, ...]:
        """Returns the index of this box in an array that holds `outer`."""
        return tuple(
            slice(begin - base, end - base)
            for begin, end, base in zip(self.start, self.stop, outer.start, strict=True)
        )


def whole(shape: Sequence[int]) -> Box:
    """Returns the box of a whole tensor."""
    return Box((0,) * len(shape), tuple(shape))


def _length(begin: int, first: int, size: int, second: int, other: int) -> int:
    return min(first + size, second + other) - begin


def spans(extents: Sequence[tuple[int, int]], start: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Locates bytes `start` to `start + length` of a piece: file offset, first byte, length of each run."""
    passed, end = 0, start + length
    for offset, size in extents:
        first, last = max(start, passed), min(end, passed + size)
        if first < last:
            yield offset + first - passed, first - start, last - first
        passed += size
        if passed >= end:
            return


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of a tensor, stored row-major in a file.

    Args:
        box: The part of the tensor. It may extend beyond the tensor into the table's padding.
        file: The file that holds the bytes.
        extents: Offset and length of its bytes in the file, in order. Unit: bytes.
        dtype: numpy's name of the type, or "bfloat16".
        transposed: Whether the file holds the box's transpose (of two dimensions).
        checksum: xxh3_128 of the bytes, if known.
        label: What errors call the piece, such as "rank_00003".
    """

    box: Box
    file: Path
    extents: tuple[tuple[int, int], ...]
    dtype: str
    transposed: bool = False
    checksum: str | None = None
    label: str = ""

    @property
    def flipped(self) -> Piece:
        """The same bytes as a part of the transpose."""
        return replace(self, box=self.box.flipped, transposed=not self.transposed)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the array in the file."""
        return self.box.shape[::-1] if self.transposed else self.box.shape


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as a checkpoint holds it, or is to hold it.

    Args:
        shape: Shape of the whole tensor without padding.
        pieces: For reading, they cover every element exactly once, or every element of the boxes for which
            the checkpoint was opened, and all or none are transposed. For writing, they may overlap and mix
            both.
    """

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    def missing(self, box: Box) -> int:
        """Returns how many elements of a box are in no piece, if none is in two; padding is never missing."""
        inside = whole(self.shape).intersect(box)
        if inside is None:
            return 0
        shared = (piece.box.intersect(inside) for piece in self.pieces)
        return inside.size - sum(each.size for each in shared if each)

    @property
    def flipped(self) -> Stored:
        """The transpose, stored in the same bytes."""
        return Stored(self.shape[::-1], tuple(piece.flipped for piece in self.pieces))


@dataclass(frozen=True)
class Source:
    """A checkpoint of any form, with its tensors under our names.

    Args:
        path: What was opened.
        form: Description for the user: "slices of 32 ranks", "released 2.6B, 512 slices", ...
        manifest: What the checkpoint records about itself, or what is known of its form; its config has at
            least "model".
        tensors: By stem ("model", "optimizer") and name.
        notes: Sentences for the user: what was guessed, what was left out.
    """

    path: Path
    form: str
    manifest: Manifest
    tensors: Mapping[str, Mapping[str, Stored]]
    notes: tuple[str, ...] = field(default=())
