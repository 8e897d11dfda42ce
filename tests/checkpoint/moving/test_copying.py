"""The streaming engine: any pieces to any slots, in bounded memory, and again after a stop."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash

from pangu_alpha.checkpoint.moving import copying, resumable, streaming
from pangu_alpha.checkpoint.moving.copying import Limits, Slot, copy_into, file_record, safetensors_file
from pangu_alpha.checkpoint.moving.resumable import ResumableFolder
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, find_damage, map_tensors
from pangu_alpha.checkpoint.tensors import Box, Piece, Source, Stored, whole

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


def test_literals_extents_and_a_single_file(tmp_path, monkeypatch):
    """What a .ckpt needs: bytes between, a tensor in several extents, and one file as the result."""
    monkeypatch.delattr(os, "posix_fadvise")  # as on macOS
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
    read[:6] = ["before"] * 6
    del read[6:]
    read += ["", ""]
    copy_into(target, source, files, limits=single)
    assert sorted(read[8:]) == [f"w{number:02}" for number in range(6, 12)]
    found = map_tensors(target / "w.safetensors")
    assert all((found[f"{name}.0"] == array).all() for name, array in arrays.items())
    assert not (tmp_path / ".merging-made").exists()


@pytest.mark.parametrize(
    "cut", [b'["model/w02", ["12', b"\0\0\0", b'["model/w02"]\n[3, []]\nnull\n\xff\n["mod']
)
def test_a_journal_that_was_cut_is_gone_on_with(tmp_path, monkeypatch, cut):
    """Interrupted, its last line cut by a full disk or a power cut; again; and finished the third time."""
    arrays, source, files = many(tmp_path, 6)
    target, single = tmp_path / "made", Limits(workers=1, progress=False)
    monkeypatch.setattr(copying, "_FLUSH", 1)
    rows, left = streaming.PieceReader.rows, [0]

    def reading(self, box, into=None):
        if not left[0]:
            raise OSError(errno.EIO, "Input/output error")
        left[0] -= 1
        return rows(self, box, into)

    monkeypatch.setattr(streaming.PieceReader, "rows", reading)
    journal = tmp_path / ".merging-made" / "journal.jsonl"
    for _ in range(2):
        left[0] = 2
        with pytest.raises(CheckpointError, match="made: not written: Input/output error"):
            copy_into(target, source, files, limits=single)
        with open(journal, "ab") as file:
            file.write(cut)
    left[0] = 2  # as many as are missing: nothing is done twice
    copy_into(target, source, files, limits=single)
    found = map_tensors(target / "w.safetensors")
    assert all((found[f"{name}.0"] == array).all() for name, array in arrays.items())
    assert not left[0] and not journal.parent.exists()


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


def test_the_same_files_read_in_another_way_are_other_work(tmp_path, monkeypatch):
    """As by another strategy: the halves of a table lie the other way round in the same files."""
    halves = [Box((0, 0), (20, 30)), Box((20, 0), (20, 30))]
    arrays = {"w00": numbers((40, 30)), "w01": numbers((40, 30), 1)}
    stored = {name: store(tmp_path / "a", name, array, halves) for name, array in arrays.items()}
    first, second = stored["w00"].pieces
    exchanged = (replace(first, box=second.box), replace(second, box=first.box))
    files = [
        safetensors_file(Path("w.safetensors"), [s for n in arrays for s in slots_of(n, [whole((40, 30))])])
    ]

    def stop(folder, sums):
        raise KeyboardInterrupt

    wrong = source_of(tmp_path, **stored | {"w00": Stored((40, 30), exchanged)})
    with pytest.raises(KeyboardInterrupt):
        copy_into(tmp_path / "made", wrong, files, stop, QUIET)
    assert len((tmp_path / ".merging-made/journal.jsonl").read_text().splitlines()) == 3  # all was done
    copy_into(tmp_path / "made", source_of(tmp_path, **stored), files, limits=QUIET)
    found = map_tensors(tmp_path / "made/w.safetensors")
    assert all((found[f"{name}.0"] == array).all() for name, array in arrays.items())


PIECE = Piece(Box((0, 0), (4, 4)), Path("a"), ((0, 64),), "float32", False, "ab", "rank 0")
OTHER_PIECES = [
    {"box": Box((4, 0), (4, 4))}, {"extents": ((8, 64),)}, {"dtype": "int32"}, {"transposed": True},
    {"checksum": "cd"}, {"file": Path("b")},
]  # fmt: skip
OTHER_SLOTS = [
    {"box": Box((4, 0), (4, 4))}, {"extents": ((8, 64),)}, {"dtype": "int32"}, {"transposed": True},
    {"name": "v"}, {"stem": "optimizer"}, {"label": "x"},
]  # fmt: skip


def test_all_that_decides_the_bytes_tells_one_work_from_another(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"the same size")
        os.utime(tmp_path / name, ns=(1, 1))
    slot = Slot("model", "w", Box((0, 0), (4, 4)), ((0, 64),))
    pieces = [replace(PIECE, **change) for change in ({}, *OTHER_PIECES)]
    pieces = [replace(piece, file=tmp_path / piece.file) for piece in pieces]
    sources = [source_of(tmp_path, w=Stored((8, 4), (piece,))) for piece in pieces]
    sources += [
        source_of(tmp_path, w=Stored((4, 8), pieces[:1])),
        source_of(tmp_path, v=Stored((8, 4), pieces[:1])),
    ]
    slots = [replace(slot, **change) for change in OTHER_SLOTS]
    targets = [copying.TargetFile(Path("x"), 64, (), (each,)) for each in (slot, *slots)]
    targets += [replace(targets[0], literals=((0, b"x"),)), replace(targets[0], path=Path("y"))]
    found = [copying._digest(source, [targets[0]]) for source in sources]
    found += [copying._digest(sources[0], [target]) for target in targets[1:]]
    assert len({*found}) == len(found) == 9 + 9
    assert copying._digest(sources[0], [targets[0]]) == found[0]


@pytest.mark.parametrize("only", [None, "w.safetensors"])
@pytest.mark.parametrize("moment", ["rename", "removal", "emptied"])
def test_a_stop_after_the_rename_is_recognised(tmp_path, monkeypatch, moment, only):
    """Before the scratch folder gets its last name, before that is removed, and half-way in that."""
    _, source, files = many(tmp_path, 2)
    less = [safetensors_file(Path("w.safetensors"), files[0].slots[:1])]
    rename, remove = os.rename, resumable.remove_own_folder

    def renaming(old, new):
        if moment == "rename" and new.name.startswith(".merged-"):
            raise KeyboardInterrupt
        rename(old, new)

    def removing(path, names):
        if path.is_dir():
            if moment == "emptied":
                remove(path, names)
                path.mkdir()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", renaming)
        patched.setattr(resumable, "remove_own_folder", removing)
        with pytest.raises(KeyboardInterrupt):
            copy_into(tmp_path / "made", source, files, limits=QUIET, only=only)
    left = {path.name[:8] for path in tmp_path.iterdir()} - {"a", "made"}
    assert left == {".merging" if moment == "rename" else ".merged-"} and (tmp_path / "made").exists()
    with pytest.raises(CheckpointError, match="made: exists already"):
        copy_into(tmp_path / "made", source, less, limits=QUIET, only=only)
    copy_into(tmp_path / "made", source, files, limits=QUIET, only=only)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "made"]
    with pytest.raises(CheckpointError, match="made: exists already"):
        copy_into(tmp_path / "made", source, files, limits=QUIET, only=only)


@pytest.mark.parametrize("journal", [None, b"", b'{"digest": "'])
def test_a_scratch_folder_that_says_nothing_proves_nothing(tmp_path, journal):
    """What a kill at the beginning leaves beside another thing of the target's name."""
    _, source, files = many(tmp_path, 2)
    (tmp_path / "made").mkdir()
    (tmp_path / ".merging-made").mkdir()
    if journal is not None:
        (tmp_path / ".merging-made/journal.jsonl").write_bytes(journal)
    with pytest.raises(CheckpointError, match="made: exists already"):
        copy_into(tmp_path / "made", source, files, limits=QUIET)
    assert not [*(tmp_path / "made").iterdir()]


def test_a_link_to_nothing_is_not_overwritten(tmp_path):
    _, source, files = many(tmp_path, 2)
    (tmp_path / "made").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="made: exists already"):
        copy_into(tmp_path / "made", source, files, limits=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "made"]


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


@pytest.mark.parametrize("place", ["publish", "_tidy", "_locked"])
def test_the_same_command_meets_itself_at_the_end(tmp_path, monkeypatch, place):
    """It runs just before the other renames its work, tidies up, or has made the folder it is to lock."""
    _, source, files = many(tmp_path, 2)
    method, said = getattr(ResumableFolder, place), []

    def meeting(folder, *arguments):
        monkeypatch.setattr(ResumableFolder, place, method)
        try:
            copy_into(tmp_path / "made", source, files, limits=QUIET)
        except CheckpointError as error:
            said.append(str(error))
        return method(folder, *arguments)

    monkeypatch.setattr(ResumableFolder, place, meeting)
    if place == "_locked":  # the other has done it all meanwhile
        with pytest.raises(CheckpointError, match="made: exists already"):
            copy_into(tmp_path / "made", source, files, limits=QUIET)
    else:
        copy_into(tmp_path / "made", source, files, limits=QUIET)
    assert all("another process is writing it" in each for each in said) and bool(said) == (
        place == "publish"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "made"]


def test_a_lock_of_a_folder_that_is_gone_is_none(tmp_path, monkeypatch):
    """Its owner removed it between the other's opening and locking it."""
    _, source, files = many(tmp_path, 2)
    lock, gone = ResumableFolder._lock, []

    def losing(folder, descriptor):
        if not gone:
            gone.append(folder.scratch.rename(tmp_path / "a" / "gone"))
        lock(folder, descriptor)

    monkeypatch.setattr(ResumableFolder, "_lock", losing)
    copy_into(tmp_path / "made", source, files, limits=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "made"] and gone[0].is_dir()


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(tmp_path, stingy_disk):
    """What stands between the tensors, too, which was once written without a look at the count."""
    array = numbers((6, 4))
    source = source_of(tmp_path, w=store(tmp_path / "a", "w", array, [whole((6, 4))]))
    slot = Slot("model", "w", whole((6, 4)), ((1000, 96),))
    head, tail = bytes(range(250)) * 4, b"tail" * 30
    file = copying.TargetFile(Path("x.ckpt"), 1216, ((0, head), (1096, tail)), (slot,))
    with stingy_disk(7):
        copy_into(tmp_path / "made.ckpt", source, [file], limits=QUIET, only="x.ckpt")
    assert (tmp_path / "made.ckpt").read_bytes() == head + array.tobytes() + tail


def test_a_disk_that_takes_nothing_is_an_error(tmp_path, stingy_disk):
    _, source, files = many(tmp_path, 2)
    with (
        stingy_disk(0),
        pytest.raises(CheckpointError, match="not written: the disk takes no more"),
    ):
        copy_into(tmp_path / "made", source, files, limits=QUIET)
    assert not (tmp_path / "made").exists()


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
