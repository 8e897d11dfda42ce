"""Reads token files as one stream, and cuts the stream into windows of S + 1 ids.

Windows do not overlap (as in the official records of 1025 ids for S = 1024), so the last id of a window is
only a label. Window k is ids [k * (S + 1), (k + 1) * (S + 1)) of the stream, so windows depend only on the
order of the files. Memory is O(number of files + windows asked for). Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike


class TokenStream:
    """Reads several arrays of token ids as one long array, without loading them.

    Args:
        files: Raw little-endian arrays of ids, in order.
        dtype: Element type of the files; see `token_dtype`.
    """

    def __init__(self, files: Sequence[Path], dtype: DTypeLike) -> None:
        self._files = tuple(files)
        self._dtype = np.dtype(dtype)
        lengths = [file.stat().st_size // self._dtype.itemsize for file in self._files]
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids [start, stop) of the stream as int32; both ends must lie inside the stream."""
        assert 0 <= start <= stop <= len(self), (start, stop, len(self))
        pieces = []
        place = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            count = min(stop, int(self._starts[place + 1])) - start
            if count:
                offset = (start - int(self._starts[place])) * self._dtype.itemsize
                pieces.append(np.fromfile(self._files[place], self._dtype, count, offset=offset))
                assert len(pieces[-1]) == count, f"{self._files[place]} shrank while it was read"
            start, place = start + count, place + 1
        return np.concatenate([np.empty(0, np.int32), *pieces]).astype(np.int32)


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest element type of a token file: two bytes for each id up to 65,536 ids, else four."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<i4")


@dataclass(frozen=True)
class Cut:
    """How a stream is cut: tokens = windows * (S + 1) + remainder - padding.

    Args:
        remainder: Number of ids at the end of the stream that are in no window.
        padding: Number of pad ids that fill up the last window.
    """

    windows: int
    remainder: int
    padding: int


def cut(tokens: int, seq_length: int, pad_last: bool) -> Cut:
    """Plans the windows of a stream.

    Args:
        tokens: Length of the stream.
        seq_length: S.
        pad_last: True fills up the last window instead of dropping the remainder, so that a validation set
            keeps its end. A remainder of one id is always dropped, because it predicts nothing.
    """
    windows, remainder = divmod(tokens, seq_length + 1)
    if pad_last and remainder > 1:
        return Cut(windows + 1, 0, seq_length + 1 - remainder)
    return Cut(windows, remainder, 0)


def read_windows(stream: TokenStream, first: int, last: int, seq_length: int, pad_id: int) -> np.ndarray:
    """Returns windows [first, last) of a stream; places beyond the stream's end are filled with pad_id.

    Returns:
        int32 array [last - first, S + 1].
    """
    size = seq_length + 1
    ids = stream.read(first * size, min(last * size, len(stream)))
    padding = np.full((last - first) * size - len(ids), pad_id, np.int32)
    return np.concatenate([ids, padding]).reshape(last - first, size)
