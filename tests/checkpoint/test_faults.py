"""Kills, full disks and folders nobody may write: each is named, and what was whole stays so."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.reshard import reshard
from pangu_alpha.checkpoint.native import durable
from pangu_alpha.checkpoint.native.background import BackgroundSaver
from pangu_alpha.checkpoint.native.distributed import SharedParts
from pangu_alpha.checkpoint.native.format import Manifest, read_checkpoint
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes

FAULTS = Path(__file__).parents[2] / "benchmarks" / "checkpoint_faults.py"
MODEL = ModelConfig(vocab_size=50, hidden_size=32, num_layers=2, num_heads=4, seq_length=16)
NOBODY = 65534


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [["save", "async-save"], ["save-slices"], ["merge", "import"]])
def test_kills_lose_nothing(tmp_path, kinds):
    """The benchmark of this name, with few kills."""
    words = ["--moments", "5", "--operations", "2", "--hidden", "64", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, FAULTS, *words, "--kinds", *kinds], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [*found] == kinds
    assert all(each["random_kills"] == 5 and each["operation_kills"] == 2 for each in found.values())


def state():
    return {"model": {name: np.ones(shape, np.float32) for name, shape in parameter_shapes(MODEL).items()}}


def manifest(step, **values):
    return Manifest(step, step, config={"model": to_mapping(MODEL)}, **values)


def save(folder):
    CheckpointStore(folder).save(state(), manifest(2))


def save_in_background(folder):
    entries = [(stem, name, array) for stem, group in state().items() for name, array in group.items()]
    with BackgroundSaver(CheckpointStore(folder).save) as saver:
        saver.save(entries, manifest(2))


def save_part(folder):
    slices = {"model": {n: {"start": [0] * a.ndim, "shape": a.shape} for n, a in state()["model"].items()}}
    SharedParts(CheckpointStore(folder), 0, 1, durable.writer_name()).save(
        state(), manifest(2, slices=slices)
    )


def merge(folder):
    source = open_source(folder / "step_00000001")
    reshard(source, folder / "step_00000002", limits=Limits(progress=False))


WRITERS = [save, save_in_background, save_part, merge]


@pytest.fixture
def folder(tmp_path):
    """One whole checkpoint."""
    CheckpointStore(tmp_path / "run").save(state(), manifest(1))
    return tmp_path / "run"


def assert_only_the_first_stands(folder):
    assert CheckpointStore(folder).newest() == folder / "step_00000001"
    assert not (folder / "step_00000002").exists()


def assert_it_goes_again(write, folder):
    write(folder)
    assert read_checkpoint(folder / "step_00000002").manifest.step in (1, 2)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("room", [0, 5_000, 90_000])
def test_a_disk_that_fills_up_is_named(folder, monkeypatch, write, room):
    left, lock = [room], threading.Lock()

    def limited(function):
        def writing(descriptor, data, *place):
            with lock:
                if not left[0]:
                    raise OSError(errno.ENOSPC, "No space left on device")
                done = function(descriptor, memoryview(data)[: left[0]], *place)
                left[0] -= done
            return done

        return writing

    for name in ("write", "pwrite"):
        monkeypatch.setattr(os, name, limited(getattr(os, name)))
    with pytest.raises(CheckpointError, match=r"step_00000002.*No space left on device"):
        write(folder)
    monkeypatch.undo()
    assert_only_the_first_stands(folder)
    assert_it_goes_again(write, folder)


@contextlib.contextmanager
def as_nobody():
    """Takes the rights of root away, which no folder refuses."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("write", WRITERS)
def test_a_folder_nobody_may_write_is_named(write):
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "run"
        CheckpointStore(folder).save(state(), manifest(1))
        folder.chmod(0o555)
        with (
            as_nobody(),
            pytest.raises(CheckpointError, match=r"(?i)step_00000002.*not (written|made).*denied"),
        ):
            write(folder)
        folder.chmod(0o755)
        assert_only_the_first_stands(folder)
        assert_it_goes_again(write, folder)


@pytest.mark.parametrize("write", WRITERS)
def test_a_disk_too_full_to_begin_is_named(write, small_disk):
    CheckpointStore(small_disk).save(state(), manifest(1))
    filler = small_disk / "filler"
    room = os.statvfs(small_disk)
    filler.write_bytes(b"\0" * (room.f_bavail * room.f_frsize - 60_000))
    with pytest.raises(CheckpointError, match=r"step_00000002.*([Nn]o space|too full|bytes)"):
        write(small_disk)
    filler.unlink()
    assert_only_the_first_stands(small_disk)
    assert_it_goes_again(write, small_disk)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB; only root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True)
    if made.returncode:
        pytest.skip("no right to mount a small file system")
    yield disk
    subprocess.run(["umount", disk], check=True)
