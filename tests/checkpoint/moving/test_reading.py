"""Boxes of tensors out of pieces of every kind."""

from __future__ import annotations

import json
from resource import RLIM_INFINITY

import numpy as np
import pytest
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pangu_alpha.checkpoint.moving import reading
from pangu_alpha.checkpoint.moving.reading import Files, convert, coverage_problems, read_box
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, locate_tensors, read_metadata
from pangu_alpha.checkpoint.tensors import Box, Piece, Stored, whole

ARRAY = np.random.default_rng(0).standard_normal((7, 10), np.float32)
BOXES = [Box((0, 0), (4, 6)), Box((4, 0), (3, 6)), Box((0, 6), (5, 4)), Box((5, 6), (2, 4))]


def store(folder, boxes, dtype="float32", transposed=False, split=None):
    """ARRAY in one file for each box, its bytes cut in extents of `split` bytes with gaps between."""
    pieces = []
    for number, box in enumerate(boxes):
        part = np.zeros(box.shape, np.float32)
        inside = box.intersect(whole(ARRAY.shape))
        part[inside.within(box)] = ARRAY[inside.within(whole(ARRAY.shape))]
        data = (part.T if transposed else part).astype(dtype).tobytes()
        step = split or len(data)
        chunks = [data[first : first + step] for first in range(0, len(data), step)]
        path = folder / f"{dtype}{number}"
        path.write_bytes(b"??" + b"##".join(chunks))
        extents = tuple((2 + index * (step + 2), len(chunk)) for index, chunk in enumerate(chunks))
        digest = xxhash.xxh3_128_hexdigest(data)
        pieces.append(Piece(box, path, extents, dtype, transposed, digest, f"rank {number}"))
    return Stored(ARRAY.shape, tuple(pieces))


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("split", [None, 12])
@pytest.mark.parametrize("chunk", [16, 1 << 20])
def test_any_box_of_any_pieces(tmp_path, monkeypatch, verify, transposed, split, chunk):
    monkeypatch.setattr(reading, "_CHUNK", chunk)
    stored = store(tmp_path, BOXES, transposed=transposed, split=split)
    for box in (whole(ARRAY.shape), Box((3, 5), (3, 2)), Box((6, 9), (1, 1)), Box((0, 0), (7, 6))):
        found = read_box(stored, box, verify=verify)
        assert found.flags.c_contiguous and (found == ARRAY[box.within(whole(ARRAY.shape))]).all()


def test_padding_is_dropped_and_made(tmp_path):
    """A table cut into 3 parts of 3 rows has 2 rows more than the whole; a box beyond the whole is zero."""
    stored = store(tmp_path, [Box((first, 0), (3, 10)) for first in (0, 3, 6)])
    (tmp_path / "float322").write_bytes(b"??" + ARRAY[6:].tobytes() + b"\1" * 80)  # padding of any values
    found = read_box(stored, Box((5, 0), (5, 10)), verify=False)
    assert (found[:2] == ARRAY[5:]).all() and not found[2:].any()
    assert coverage_problems("table", stored) == []


def test_types(tmp_path):
    half = store(tmp_path, [whole(ARRAY.shape)], "float16")
    assert (read_box(half, whole(ARRAY.shape)) == ARRAY.astype(np.float16)).all()
    bits = (ARRAY.view(np.uint32) >> 16).astype(np.uint16)
    found = convert(bits, "bfloat16", np.float32)
    assert found.dtype == np.float32 and (found.view(np.uint32) == ARRAY.view(np.uint32) >> 16 << 16).all()
    assert convert(np.array([np.inf, 1e9], np.float32), "float32", np.float64).tolist() == [np.inf, 1e9]
    with pytest.raises(CheckpointError, match="w: 70000.0 is beyond the largest float16; keep float32"):
        convert(np.array([np.inf, 7e4], np.float32), "float32", np.float16, "w")


def test_damage_is_named(tmp_path):
    stored = store(tmp_path, BOXES)
    path = tmp_path / "float321"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    expected = stored.pieces[1].checksum
    with pytest.raises(CheckpointError, match=f"float321: damaged: w: expected xxh3_128 {expected}, found "):
        read_box(stored, Box((4, 0), (1, 1)), name="w")
    assert (read_box(stored, Box((0, 0), (4, 6))) == ARRAY[:4, :6]).all()  # other pieces are fine
    path.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match="float321: w: cut short at byte"):
        read_box(stored, whole(ARRAY.shape), name="w", verify=False)
    path.unlink()
    with pytest.raises(CheckpointError, match="float321: cannot be opened"):
        read_box(stored, whole(ARRAY.shape))


def test_what_is_missing_or_twice_is_named(tmp_path):
    stored = store(tmp_path, BOXES)
    assert coverage_problems("w", stored) == []
    less = Stored(ARRAY.shape, stored.pieces[:1] + stored.pieces[2:])
    assert coverage_problems("w", less)[0].startswith("w[4:5, 0:6] of [7, 10] is in no piece")
    more = Stored(ARRAY.shape, (*stored.pieces, stored.pieces[3]))
    assert coverage_problems("w", more) == ["w[5:7, 6:10] of [7, 10] is twice, in rank 3, rank 3"]
    assert len(coverage_problems("w", Stored(ARRAY.shape, ()))) == 1


def test_files_are_closed_when_there_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_OPEN_FILES", 3)
    for number in range(9):
        (tmp_path / str(number)).write_bytes(b"x")
    with Files(root=tmp_path) as files:
        with files.use("0") as first:
            for number in range(1, 9):
                with files.use(str(number)):
                    pass
            with files.use("0") as again:
                assert first == again  # in use, so it stayed open
        assert len(files._open) <= 4
    assert not files._open


@pytest.mark.parametrize(("allowed", "most"), [(256, 64), (512, 128), (1 << 20, 256), (RLIM_INFINITY, 256)])
def test_files_leave_room_for_others_in_the_process(tmp_path, monkeypatch, allowed, most):
    """Two of them, as a copy has, and whatever else is open; macOS allows 256."""
    monkeypatch.setattr(reading.resource, "getrlimit", lambda _: (allowed, allowed))
    for number in range(most + 2):
        (tmp_path / str(number)).touch()
    with Files(root=tmp_path) as files:
        for number in range(most + 2):
            with files.use(str(number)):
                pass
        assert len(files._open) == most


@pytest.mark.parametrize(
    "header",
    [
        {"a": 3},
        [1],
        {"x": {"dtype": "F32"}},
        {"x": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        {"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
    ],
)
def test_a_header_of_another_kind_is_refused(tmp_path, header):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, json.dumps(header))
    with pytest.raises(CheckpointError, match="not a safetensors file|type F8_E4M3 is not|are not its data"):
        locate_tensors(path)


def write_safetensors(path, header):
    path.write_bytes(len(header.encode()).to_bytes(8, "little") + header.encode() + b"0000")


def entry(start, stop, shape=None):
    return json.dumps({"dtype": "U8", "shape": shape or [stop - start], "data_offsets": [start, stop]})


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (f'{{"a": {entry(0, 4)}, "b": {entry(3, 4)}}}', "a and b share bytes"),
        (f'{{"b": {entry(0, 2)}, "a": {entry(0, 4)}}}', "share bytes"),
        (
            f'{{"a": {entry(0, 2)}, "b": {entry(2, 4)}, "a": {entry(2, 4)}}}',
            "its header: key 'a' twice in one object",
        ),
        (f'{{"a": {entry(0, 4)[:-1]}, "shape": [4]}}}}', "its header: key 'shape' twice in one object"),
        (f'{{"a": {entry(0, 4, [-2, -2])}}}', "its header says .* of 'a'"),
        (f'{{"__metadata__": 0, "a": {entry(0, 4)}}}', "its metadata is no mapping of texts"),
        (f'{{"__metadata__": {{"a": 3}}, "a": {entry(0, 4)}}}', "its metadata is no mapping of texts"),
        ('{"a":' * 100_000, "not a safetensors file"),
    ],
)
def test_a_header_that_the_safetensors_library_refuses_is_refused(tmp_path, header, said):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, header)
    with pytest.raises(CheckpointError, match=said):
        locate_tensors(path)
    with pytest.raises(SafetensorError):
        load_file(path)


def test_a_tensor_of_no_bytes_may_lie_anywhere(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, f'{{"a": {entry(0, 4)}, "none": {entry(2, 2)}}}')
    assert {name: extent.bytes for name, extent in locate_tensors(path).items()} == {"a": 4, "none": 0}


def test_metadata(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path, {"format": "pt"})
    assert read_metadata(path) == {"format": "pt"}
    for said in ("", '"__metadata__": null, '):
        write_safetensors(path, f'{{{said}"a": {entry(0, 4)}}}')
        assert read_metadata(path) == {} and [*locate_tensors(path)] == ["a"]
