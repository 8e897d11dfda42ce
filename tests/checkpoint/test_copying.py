"""The streaming engine: any pieces to any slots, in bounded memory, and again after a stop."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash

from pangu_alpha.checkpoint import copying, streaming
from pangu_alpha.checkpoint.copying import Limits, Slot, copy_into, file_record, safetensors_file
from pangu_alpha.checkpoint.format import Manifest
from pangu_alpha.checkpoint.pieces import Box, Piece, Source, Stored, whole
from pangu_alpha.checkpoint.resumable import ResumableFolder
from pangu_alpha.checkpoint.tensor_file import CheckpointError, find_damage, map_tensors

QUIET = Limits(workers=2, progress=False)
CUTS = {
    "whole": [Box((0, 0), (13, 10))],
    "rows": [Box((first, 0), (5, 10)) for first in (10, 0, 5)],  # 2 rows of padding
    "columns": [Box((0, 0), (13, 4)), Box((0, 4), (13, 6))],
    "both": [Box((r, c), (n, m)) for r, n in ((0, 6), (6, 7)) for c, m in ((5, 5), (0, 5))],
}


def numbers(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def store(folder, name, array, boxes, dtype="float32", transposed=False):
    """An array as pieces, each in a file of its own; padding holds ones."""
    folder.mkdir(exist_ok=True)
    pieces = []
    for number, box in enumerate(boxes):
        part = np.ones(box.shape, np.float32)
        inside = box.intersect(whole(array.shape))
        part[inside.within(box)] = array[inside.within(whole(array.shape))]
        data = (part.T if transposed else part).astype(dtype).tobytes()
        path = folder / f"{name}.{number}"
        path.write_bytes(b"head" + data)
        digest = xxhash.xxh3_128_hexdigest(data)
        pieces.append(Piece(box, path, ((4, len(data)),), dtype, transposed, digest, f"rank {number}"))
    return Stored(array.shape, tuple(pieces))


def source_of(folder, **tensors):
    return Source(folder, "test", Manifest(1, 1, {}), {"model": tensors})


def slots_of(name, boxes, dtype="float32", transposed=False):
    return [
        Slot("model", name, box, (), dtype, transposed, f"{name}.{number}")
        for number, box in enumerate(boxes)
    ]


def expected(array, box, dtype, transposed):
    padded = np.zeros([max(a, b) for a, b in zip(array.shape, box.stop, strict=True)], np.float32)
    padded[: array.shape[0], : array.shape[1]] = array
    part = padded[box.within(whole(padded.shape))].astype(dtype)
    return part.T if transposed else part


@pytest.mark.parametrize("chunk", [64, 1 << 20])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float16", "float32"), ("float32", "float16")])
def test_any_pieces_to_any_slots(tmp_path, monkeypatch, chunk, turned, dtypes):
    """The small chunk makes every tensor come in many runs, and turned pieces be written in strips."""
    monkeypatch.setattr(streaming, "CHUNK", chunk)
    monkeypatch.setattr(copying, "CHUNK", chunk)
    monkeypatch.setattr(copying, "_room", lambda tasks, limits: chunk)
    array = numbers((13, 10)).astype(np.float16).astype(np.float32)
    for first, boxes in CUTS.items():
        source = source_of(tmp_path, w=store(tmp_path / first, "w", array, boxes, dtypes[0], turned[0]))
        slots = [slot for name in CUTS for slot in slots_of("w", CUTS[name], dtypes[1], turned[1])]
        files = [safetensors_file(Path(f"{i}.safetensors"), [slot]) for i, slot in enumerate(slots)]
        records = {}

        def keep(folder, sums, files=files, records=records):
            records.update({file.path: file_record(file, sums[file.path]) for file in files})

        copy_into(tmp_path / f"to_{first}", source, files, keep, QUIET)
        for file in files:
            path, slot = tmp_path / f"to_{first}" / file.path, file.slots[0]
            assert [*find_damage(path, records[file.path], deep=True)] == []
            found = map_tensors(path)[slot.label]
            assert found.tobytes() == expected(array, slot.box, dtypes[1], turned[1]).tobytes(), (first, slot)


def test_literals_extents_and_a_single_file(tmp_path):
    """What a .ckpt needs: bytes between, a tensor in several extents, and one file as the result."""
    array = numbers((6, 4))
    source = source_of(tmp_path, w=store(tmp_path / "a", "w", array, [whole((6, 4))]))
    slot = Slot("model", "w", whole((6, 4)), ((3, 50), (60, 46)))
    file = copying.TargetFile(Path("x.ckpt"), 110, ((0, b"abc"), (53, b"defghij"), (106, b"last")), (slot,))
    copy_into(tmp_path / "made.ckpt", source, [file], limits=QUIET, only="x.ckpt")
    data = (tmp_path / "made.ckpt").read_bytes()
    assert data[:3] == b"abc" and data[53:60] == b"defghij" and data[106:] == b"last"
    assert data[3:53] + data[60:106] == array.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "made.ckpt"]


def many(tmp_path, count=12):
    """A source of several tensors and its target."""
    arrays = {f"w{number:02}": numbers((40, 30), number) for number in range(count)}
    stored = {name: store(tmp_path / "a", name, a, [whole(a.shape)]) for name, a in arrays.items()}
    slots = [slot for name in arrays for slot in slots_of(name, [whole((40, 30))])]
    return arrays, source_of(tmp_path, **stored), [safetensors_file(Path("w.safetensors"), slots)]


def test_work_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """Every tensor flushed alone; the disk refuses at the 7th; the rest alone is done the next time."""
    arrays, source, files = many(tmp_path)
    monkeypatch.setattr(copying, "_FLUSH", 1)
    read = []
    rows = streaming.PieceReader.rows

    def reading(self, box, into=None):
        read.append(self.name)
        if len(read) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rows(self, box, into)

    monkeypatch.setattr(streaming.PieceReader, "rows", reading)
    target, single = tmp_path / "made", Limits(workers=1, progress=False)
    with pytest.raises(CheckpointError, match=r"No space left.*run the same command again: what was done"):
        copy_into(target, source, files, limits=single)
    assert not target.exists()
    journal = (tmp_path / ".merging-made" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in journal[1:]] == [f"model/w{number:02}" for number in range(6)]
    with open(tmp_path / ".merging-made" / "journal.jsonl", "a") as file:
        file.write('["model/w06", ["12')  # a line that a kill cut
    read[:6] = ["before"] * 6
    del read[6:]
    read += ["", ""]
    copy_into(target, source, files, limits=single)
    assert sorted(read[8:]) == [f"w{number:02}" for number in range(6, 12)]
    found = map_tensors(target / "w.safetensors")
    assert all((found[f"{name}.0"] == array).all() for name, array in arrays.items())
    assert not (tmp_path / ".merging-made").exists()


def test_a_disk_that_fails_to_flush_ends_it(tmp_path, monkeypatch):
    """What was flushed before the failure is kept; nothing that was flushed after it is believed."""
    arrays, source, files = many(tmp_path)
    monkeypatch.setattr(copying, "_FLUSH", 1)
    target, single, fsync = tmp_path / "made", Limits(workers=1, progress=False), os.fsync
    flushed = []

    def failing(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("content/w.safetensors"):
            flushed.append(descriptor)
            if len(flushed) == 5:  # the first is that of the header
                raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(CheckpointError, match="made: not written: Input/output error"):
        copy_into(target, source, files, limits=single)
    journal = (tmp_path / ".merging-made" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in journal[1:]] == [f"model/w{number:02}" for number in range(3)]
    copy_into(target, source, files, limits=single)
    found = map_tensors(target / "w.safetensors")
    assert all((found[f"{name}.0"] == array).all() for name, array in arrays.items())


def test_other_work_half_done_under_the_name_is_not_taken(tmp_path, monkeypatch):
    arrays, source, files = many(tmp_path, 3)

    def stop(folder, sums):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_into(tmp_path / "made", source, files, stop, QUIET)
    piece = source.tensors["model"]["w00"].pieces[0]
    changed = numbers((40, 30), 77)
    piece.file.write_bytes(b"head" + changed.tobytes())  # the source is another one now
    os.utime(piece.file, ns=(1, 1))
    digest = xxhash.xxh3_128_hexdigest(changed.tobytes())
    again = Piece(piece.box, piece.file, piece.extents, "float32", False, digest)
    new = source_of(tmp_path, **{**source.tensors["model"], "w00": Stored((40, 30), (again,))})
    copy_into(tmp_path / "made", new, files, limits=QUIET)
    assert (map_tensors(tmp_path / "made" / "w.safetensors")["w00.0"] == changed).all()


def test_a_stop_after_the_rename_is_recognised(tmp_path, monkeypatch):
    _, source, files = many(tmp_path, 2)
    with monkeypatch.context() as patched:
        stop = (_ for _ in ()).throw
        patched.setattr(ResumableFolder, "_remove_scratch", lambda folder: stop(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            copy_into(tmp_path / "made", source, files, limits=QUIET)
    assert (tmp_path / "made").exists() and (tmp_path / ".merging-made").exists()
    copy_into(tmp_path / "made", source, files, limits=QUIET)
    assert not (tmp_path / ".merging-made").exists()
    with pytest.raises(CheckpointError, match="made: exists already"):
        copy_into(tmp_path / "made", source, files, limits=QUIET)


def test_refusals(tmp_path, monkeypatch):
    arrays, source, files = many(tmp_path, 2)
    target = tmp_path / "made"
    lacking = source_of(tmp_path, w00=source.tensors["model"]["w00"])
    with pytest.raises(CheckpointError, match=r"not whole, nothing was written:\n  - w01: missing"):
        copy_into(target, lacking, files, limits=QUIET)
    with pytest.raises(CheckpointError, match=r"1,000 bytes are too few for 2 workers.*give at least"):
        copy_into(target, source, files, limits=Limits(1000, 2, False))
    with pytest.raises(CheckpointError, match="workers: 0 must be at least 1"):
        copy_into(target, source, files, limits=Limits(workers=0))
    assert not [path for path in tmp_path.iterdir() if path.name != "a"]  # nothing is begun
    path = source.tensors["model"]["w01"].pieces[0].file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"w01\.0: damaged: w01: expected xxh3_128 \w+, found \w+"):
        copy_into(target, source, files, limits=QUIET)
    full = shutil.disk_usage(tmp_path)._replace(free=5000)
    shutil.rmtree(tmp_path / ".merging-made")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(CheckpointError, match=r"made: not written: .* bytes needed .*5,000 free"):
        copy_into(target, source, files, limits=QUIET)
    assert not [path for path in tmp_path.iterdir() if path.name != "a"]


def test_two_at_once(tmp_path):
    _, source, files = many(tmp_path, 2)

    def meanwhile(folder, sums):
        copy_into(tmp_path / "made", source, files, limits=QUIET)

    with pytest.raises(CheckpointError, match="another process is writing it; wait for its end"):
        copy_into(tmp_path / "made", source, files, meanwhile, QUIET)


def test_memory_is_bounded(tmp_path):
    """A transposed matrix of 48 MB within 42 MB beside the process's own: strips, read again for the hash."""
    shape = (4000, 3000)
    data = numbers(shape[::-1])
    path = tmp_path / "w"
    path.write_bytes(data.tobytes())
    digest = xxhash.xxh3_128_hexdigest(data.tobytes())
    piece = Piece(whole(shape), path, ((0, data.nbytes),), "float32", True, digest)
    source = source_of(tmp_path, w=Stored(shape, (piece,)))
    files = [safetensors_file(Path("w.safetensors"), slots_of("w", [whole(shape)]))]
    held = []
    turned = streaming._turned
    try:
        streaming._turned = lambda values: held.append(values.nbytes) or turned(values)
        copy_into(tmp_path / "made", source, files, limits=Limits(copying._PROCESS + (40 << 20), 1, False))
    finally:
        streaming._turned = turned
    assert len(held) > 3 and 2 * max(held) + streaming.CHUNK <= 40 << 20
    assert (map_tensors(tmp_path / "made" / "w.safetensors")["w.0"] == data.T).all()
