from __future__ import annotations

import errno
import json
import math
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pangu_alpha.checkpoint.native import durable, format, tensor_file
from pangu_alpha.checkpoint.native.format import (
    Manifest,
    compare_tensors,
    read_checkpoint,
    write_checkpoint,
)
from pangu_alpha.checkpoint.native.store import CheckpointStore, resolve_resume
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, map_tensors


def make_tensors(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((5, 3)).astype(np.float32)
    return {
        "model": {
            "layer.bias": rng.standard_normal(3).astype(np.float16),
            "layer.weight": weight,
            "strided": weight.T,
            "ids": np.arange(4, dtype=np.int32),
            "scalar": np.asarray(7, np.int64),
            "empty": np.zeros((0, 3), np.float32),
        },
        "optimizer": {"adam_m.layer.weight": weight * 2, "adam_v.layer.weight": weight**2},
    }


def make_manifest(step: int = 10, **state: object) -> Manifest:
    return Manifest(
        step, samples=step * 4, config={"model": {"hidden_size": 3}}, tokenizer="ab12", state=state
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "one", make_tensors(), make_manifest())
    return tmp_path / "one"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def reseal(folder: Path, **changes: object) -> None:
    """Rewrites the manifest as another program would, marker included."""
    values = {**json.loads((folder / "manifest.json").read_text()), **changes}
    text = json.dumps(values).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "COMPLETE").write_text(f"xxh3_128 {tensor_file.checksum(text)} manifest.json\n")


def test_round_trip(checkpoint: Path):
    found = read_checkpoint(checkpoint)
    assert (found.manifest.step, found.manifest.samples, found.manifest.tokenizer) == (10, 40, "ab12")
    assert found.manifest.config == {"model": {"hidden_size": 3}}
    for stem, group in make_tensors().items():
        loaded = found.load(stem)
        assert loaded.keys() == group.keys()
        for name, array in group.items():
            assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
            assert loaded[name].tobytes() == array.tobytes()
            assert loaded[name].flags.aligned
    assert names(checkpoint) == {"model.safetensors", "optimizer.safetensors", "manifest.json", "COMPLETE"}
    assert names(checkpoint.parent) == {"one"}


def test_files_are_safetensors_to_the_library_and_back(checkpoint: Path, tmp_path: Path):
    for stem, group in make_tensors().items():
        theirs = load_file(checkpoint / f"{stem}.safetensors")
        assert theirs.keys() == group.keys()
        assert all(theirs[name].tobytes() == group[name].tobytes() for name in group)
    contiguous = {name: np.ascontiguousarray(array) for name, array in make_tensors()["model"].items()}
    save_file(contiguous, tmp_path / "theirs.safetensors", metadata={"format": "np"})
    ours = map_tensors(tmp_path / "theirs.safetensors")
    assert ours.keys() == contiguous.keys()
    assert all(ours[name].tobytes() == contiguous[name].tobytes() for name in ours)


def test_loaded_arrays_can_be_written_without_touching_the_file(checkpoint: Path):
    read_checkpoint(checkpoint).load("model")["layer.weight"][:] = 0
    assert read_checkpoint(checkpoint).load("model")["layer.weight"].any()


def test_state_comes_back_bit_for_bit(tmp_path: Path):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**64, 500, dtype=np.uint64).view(np.float64)
    numbers = [x for x in bits.tolist() if math.isfinite(x)]
    numbers += [0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, 2.0**32]
    state = {"numbers": numbers, "count": 2**63 + 1, "none": None, "nested": {"好": [True]}}
    write_checkpoint(tmp_path / "one", {"model": {}}, make_manifest(**state))
    found = read_checkpoint(tmp_path / "one").manifest.state
    assert struct.pack(f"{len(numbers)}d", *found["numbers"]) == struct.pack(f"{len(numbers)}d", *numbers)
    assert found == state


def test_a_manifest_is_json_and_older_ones_with_nan_are_read(tmp_path: Path):
    manifest = Manifest(1, 4, config={"optim": {"learning_rate": math.nan, "epsilon": 1e-8}})
    write_checkpoint(tmp_path / "one", {"model": {}}, manifest)
    text = (tmp_path / "one" / "manifest.json").read_text()
    assert '"learning_rate": null' in text and "NaN" not in text
    reseal(tmp_path / "one", state={"guard": {"mean_norm": math.inf}})
    assert read_checkpoint(tmp_path / "one").manifest.state["guard"]["mean_norm"] == math.inf


# JSON has no NaN and no infinity; the state of a run never has one (see training.guard).
@pytest.mark.parametrize("value", [{1: "a"}, (1, 2), math.nan, [-math.inf]])
def test_state_that_json_would_change_is_our_mistake(tmp_path: Path, value: object):
    with pytest.raises(AssertionError, match="not plain JSON"):
        write_checkpoint(tmp_path / "one", {"model": {}}, make_manifest(value=value))
    assert names(tmp_path) == set()


def test_every_single_flipped_byte_is_found(checkpoint: Path):
    rng = np.random.default_rng(2)
    for path in checkpoint.iterdir():
        whole = path.read_bytes()
        for place in range(len(whole)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            with pytest.raises(CheckpointError, match=path.name):
                read_checkpoint(checkpoint)
        path.write_bytes(whole)
    read_checkpoint(checkpoint)


def test_every_cut_is_found_without_reading_the_tensors(checkpoint: Path):
    for path in checkpoint.iterdir():
        whole = path.read_bytes()
        for length in {0, 1, 7, 8, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match=path.name):
                read_checkpoint(checkpoint, verify=False)
        path.write_bytes(whole + b" ")
        with pytest.raises(CheckpointError, match=path.name):
            read_checkpoint(checkpoint, verify=False)
        path.unlink()
        with pytest.raises(CheckpointError, match=path.name):
            read_checkpoint(checkpoint, verify=False)
        path.write_bytes(whole)
    read_checkpoint(checkpoint)


def test_all_damage_is_listed_with_file_tensor_expected_and_found(checkpoint: Path):
    model, optimizer = checkpoint / "model.safetensors", checkpoint / "optimizer.safetensors"
    record = read_checkpoint(checkpoint).manifest.files["model"].tensors["layer.weight"]
    data = bytearray(model.read_bytes())
    place = data.index(make_tensors()["model"]["layer.weight"].tobytes())
    data[place] ^= 1
    model.write_bytes(data)
    size = optimizer.stat().st_size
    optimizer.write_bytes(optimizer.read_bytes()[:-3])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(checkpoint)
    text = str(caught.value)
    assert f"model.safetensors: layer.weight: expected xxh3_128 {record.checksum}, found " in text
    assert f"optimizer.safetensors: expected {size} bytes, found {size - 3}" in text
    assert str(checkpoint) in text


def test_what_is_no_checkpoint_is_refused_with_the_reason(checkpoint: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such folder"):
        read_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no such folder"):
        read_checkpoint(checkpoint / "manifest.json")
    (checkpoint / "COMPLETE").unlink()
    with pytest.raises(CheckpointError, match="unfinished"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("version", [2, 0, None])
def test_another_format_version_is_refused(checkpoint: Path, version: int | None):
    reseal(checkpoint, version=version, files={"unknown": "layout"})
    with pytest.raises(CheckpointError, match=f"format version {version}, this program reads 1"):
        read_checkpoint(checkpoint)


def test_unknown_file_is_named(checkpoint: Path):
    with pytest.raises(CheckpointError, match="no file 'moments'; it has model, optimizer"):
        read_checkpoint(checkpoint).load("moments")


@pytest.mark.parametrize("array", [np.zeros(2, ">f4"), np.zeros(2, np.complex64), np.array(["a"])])
def test_types_without_a_code_are_refused_by_name(tmp_path: Path, array: np.ndarray):
    with pytest.raises(CheckpointError, match="odd: type"):
        write_checkpoint(tmp_path / "one", {"model": {"odd": array}}, make_manifest())
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("code", "complaint"),
    [("BF16", "w: type BF16 is not one of"), ("F32", "w: bytes 0 to 2 of 2 are not its data")],
)
def test_foreign_files_numpy_cannot_hold_are_refused(tmp_path: Path, code: str, complaint: str):
    header = json.dumps({"w": {"dtype": code, "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match=complaint):
        map_tensors(tmp_path / "x")


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, (4).to_bytes(8, "little") + b"{{{{"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        map_tensors(tmp_path / "x")


def test_a_flipped_length_of_a_large_files_header_is_damage_and_not_a_question_of_memory(checkpoint: Path):
    """As of 200 GB, which no memory holds: a sparse file, of which the manifest knows the size."""
    file = checkpoint / "model.safetensors"
    os.truncate(file, 200 << 30)
    files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    files["model"]["bytes"] = 200 << 30
    reseal(checkpoint, files=files)
    with open(file, "r+b") as opened:
        opened.seek(5)
        opened.write(b"\x10")  # 16 TB more
    for verify in (True, False):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: header: expected xxh3_128"):
            read_checkpoint(checkpoint, verify)
    with pytest.raises(
        CheckpointError, match=r"header of 17,592,\S+ bytes is beyond the format's 100,000,000"
    ):
        map_tensors(file)
    resumed = CheckpointStore(checkpoint.parent / "run")
    resumed.save(make_tensors(), make_manifest(4))
    checkpoint.rename(resumed.path(10))
    assert resolve_resume("auto", resumed) == resumed.path(4)


RECORD = {"bytes": 1, "header": ""}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"files": {"model": 3}}, "files: no record of a file: 3"),
        ({"files": {"model": {**RECORD, "tensors": {"w": {"dtype": "float32"}}}}}, "files: no record"),
        ({"files": {"model": {**RECORD, "tensors": {"w": {"shape": [], "dtype": 3}}}}}, "files: no record"),
        ({"files": 3, "step": "10", "config": None}, "whatever its checksum: config, files, step"),
        ({"config": {"model": 3, "parallel": [1]}}, r"checksum: config\.model, config\.parallel"),
        ({"colour": "blue"}, "checksum: colour"),
        ({"slices": {"model": {"w": {"start": [0], "shape": [1, 2]}}}}, r"checksum: slices\.model"),
        ({"parts": {"../x/rank_00000": "0"}}, r"checksum: '\.\./x/rank_00000'"),
        ({"parts": {"..": "0"}}, r"checksum: '\.\.'"),
        ({"parts": {"rank_00000": 3}}, r"checksum: parts\.rank_00000"),
    ],
)
def test_a_manifest_of_another_form_is_refused_whatever_its_marker_says(checkpoint: Path, changes, said):
    reseal(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=rf"manifest\.json: .*{said}"):
        read_checkpoint(checkpoint)


def test_a_header_with_other_tensors_than_the_manifest_says(checkpoint: Path):
    files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    files["model"]["tensors"].popitem()
    reseal(checkpoint, files=files)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: header: it has other tensors"):
        read_checkpoint(checkpoint)


def test_a_checkpoint_never_overwrites(checkpoint: Path):
    before = (checkpoint / "COMPLETE").read_bytes()
    with pytest.raises(CheckpointError, match="exists already"):
        write_checkpoint(checkpoint, make_tensors(3), make_manifest())
    assert (checkpoint / "COMPLETE").read_bytes() == before


@pytest.mark.parametrize("room", range(0, 4000, 300))
def test_disk_filling_up_leaves_nothing_and_says_the_bytes(tmp_path: Path, monkeypatch, room: int):
    write, left = os.write, [room]

    def limited(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(descriptor, data[: left[0]])  # a filling disk takes a part first
        left[0] -= done
        return done

    monkeypatch.setattr(durable.os, "write", limited)
    with pytest.raises(CheckpointError, match=r"No space left.*: [\d,]+ bytes needed, [\d,]+ free"):
        write_checkpoint(tmp_path / "one", make_tensors(), make_manifest(pad="x" * 3000))
    assert names(tmp_path) == set()


def test_too_small_a_disk_is_refused_before_writing(tmp_path: Path, monkeypatch):
    usage = format.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(format.shutil, "disk_usage", lambda _: usage._replace(free=12345))
    with pytest.raises(CheckpointError, match="too full to begin: .* bytes needed, 12,345 free"):
        write_checkpoint(tmp_path / "one", make_tensors(), make_manifest())
    assert names(tmp_path) == set()


def test_a_really_full_disk(tmp_path: Path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        monkeypatch.setattr(format, "_MARGIN", 0)
        write_checkpoint(disk / "first", make_tensors(), make_manifest())
        big = {"model": {"w": np.ones(100_000, np.float32)}}
        with pytest.raises(CheckpointError, match="too full to begin"):
            write_checkpoint(disk / "second", big, make_manifest())
        huge = format.shutil.disk_usage(tmp_path)._replace(free=1 << 40)
        with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="No space left"):
            patch.setattr(format.shutil, "disk_usage", lambda _: huge)
            write_checkpoint(disk / "second", big, make_manifest())
        assert names(disk) == {"first"}
        read_checkpoint(disk / "first")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_unwritable_place_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"one: not written: .*\(.*file"):
        write_checkpoint(tmp_path / "file" / "one", make_tensors(), make_manifest())


def test_compare_tensors_lists_every_difference():
    expected = {"a": ((2, 3), "float32"), "b": ((2,), "float32"), "c": ((4,), "float32"), "d": ((1,), None)}
    found = {"a": ([2, 3], np.float32), "b": ((3,), "float32"), "d": ((1,), "float16"), "e": ((9,), "int32")}
    with pytest.raises(CheckpointError) as caught:
        compare_tensors(expected, found, "there")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("there: 3 tensors do not fit the 4 expected")
    assert lines[1:] == [
        "  - missing: c [4] float32",
        "  - extra: e [9] int32",
        "  - differs: b [2] float32, found [3] float32",
    ]
    with pytest.raises(CheckpointError, match=r"differs: b \[2\] float32, found \[2\] float16"):
        compare_tensors({"b": expected["b"]}, {"b": ((2,), np.float16)}, "there")


def test_compare_tensors_takes_the_specs_of_a_checkpoint(checkpoint: Path):
    specs = read_checkpoint(checkpoint).specs("optimizer")
    compare_tensors(dict.fromkeys(specs, ((5, 3), np.float32)), specs, "optimizer")
    assert len(specs) == 2


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(tmp_path, stingy_disk):
    with stingy_disk(5):
        write_checkpoint(tmp_path / "made", {"model": {"w": np.arange(300.0)}}, Manifest(1, 1, {}))
    assert (read_checkpoint(tmp_path / "made").load("model")["w"] == np.arange(300.0)).all()


def test_a_path_that_is_not_utf8_comes_back_and_nothing_else_may_hold_such_text(tmp_path):
    path = os.fsdecode("模型".encode("gbk"))
    config = {"run": {"output": path, "initial": f"/{path}/run"}}
    written = write_checkpoint(tmp_path / "one", make_tensors(), Manifest(1, 1, config, state={"a": "b"}))
    assert read_checkpoint(tmp_path / "one").manifest == written
    reseal(tmp_path / "one", state={"end_of_document": path})
    with pytest.raises(CheckpointError, match="manifest.json: a text holds half of a surrogate pair"):
        read_checkpoint(tmp_path / "one")
