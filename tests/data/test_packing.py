"""Cutting the stream: no token lost, none doubled, files joined without a seam."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.data.packing import TokenStream, cut, read_windows, token_dtype


@pytest.fixture
def parts() -> list[np.ndarray]:
    return [np.arange(0, 7), np.arange(0), np.arange(7, 8), np.arange(8, 30), np.arange(0)]


@pytest.fixture(params=[100, 70_000], ids=["two bytes", "four bytes"])
def stream(request, parts, tmp_path) -> TokenStream:
    dtype = token_dtype(request.param)
    files = [tmp_path / f"{place}.tokens" for place in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        part.astype(dtype).tofile(file)
    return TokenStream(files, dtype)


def test_any_part_of_the_stream_reads_as_from_one_array(stream):
    assert len(stream) == 30
    for start in range(31):
        for stop in range(start, 31):
            ids = stream.read(start, stop)
            assert ids.dtype == np.int32 and ids.tolist() == list(range(start, stop))


def test_an_empty_stream_has_no_windows():
    assert len(TokenStream([], np.dtype("<u2"))) == 0
    assert cut(0, 16, pad_last=True).windows == 0


@pytest.mark.parametrize("pad_last", [False, True])
@pytest.mark.parametrize("seq_length", [1, 2, 4, 28, 29, 30, 100])
def test_tokens_in_are_tokens_out_and_remainder(stream, seq_length, pad_last):
    plan = cut(len(stream), seq_length, pad_last)
    windows = read_windows(stream, 0, plan.windows, seq_length, pad_id=99)
    assert windows.shape == (plan.windows, seq_length + 1) and windows.dtype == np.int32
    ids = windows.ravel()
    assert np.count_nonzero(ids == 99) == plan.padding
    assert ids[ids != 99].tolist() == list(range(len(stream) - plan.remainder))
    assert ids.size + plan.remainder - plan.padding == len(stream)
    assert plan.remainder <= (1 if pad_last else seq_length)


def test_windows_may_be_read_in_any_cut(stream):
    whole = read_windows(stream, 0, 6, 4, pad_id=99)
    pieces = [read_windows(stream, first, first + 2, 4, pad_id=99) for first in (0, 2, 4)]
    assert np.array_equal(whole, np.concatenate(pieces))


def test_two_bytes_suffice_up_to_65536_ids():
    assert token_dtype(65_536).itemsize == 2 and token_dtype(65_537).itemsize == 4
