"""A save beside the training: what is saved is what was copied, one at a time, and no error is lost."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.native.background import BackgroundSaver
from pangu_alpha.checkpoint.native.format import Manifest, read_checkpoint
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError


def manifest(step):
    return Manifest(step, samples=step, config={})


class Disk:
    """Writes when it is let; remembers what it was given."""

    def __init__(self, error=None):
        self.open, self.error, self.written = threading.Event(), error, []

    def __call__(self, arrays, manifest):
        assert self.open.wait(10)
        self.written.append({(s, n): a.copy() for s, group in arrays.items() for n, a in group.items()})
        if self.error:
            raise self.error
        return Path(f"step_{manifest.step}")


def test_what_is_written_is_what_was_there_when_it_was_asked_for():
    weights, disk = np.ones(1000, np.float32), Disk()
    with BackgroundSaver(disk) as saver:
        saver.reserve([("model", "w", weights.shape, weights.dtype)])
        for step in (1, 2):
            disk.open.clear()
            saver.save([("model", "w", weights)], manifest(step))
            saver.copied()
            weights += 1
            assert saver.finished() is None
            disk.open.set()
            saved = saver.wait()
            assert saved.step == step and saved.path == Path(f"step_{step}") and saved.held <= saved.took
            assert saver.wait() is None and saver.finished() is None
    assert [each["model", "w"][0] for each in disk.written] == [1.0, 2.0]
    assert (weights == 3).all()


def test_a_second_save_waits_for_the_first_and_says_so(caplog):
    caplog.set_level(logging.INFO)
    weights, disk = np.ones(10, np.float32), Disk()
    with BackgroundSaver(disk) as saver:
        saver.save([("model", "w", weights)], manifest(1))
        threading.Timer(0.2, disk.open.set).start()
        assert saver.save([("model", "w", weights * 2)], manifest(2)).step == 1
        assert "still being written: waiting" in caplog.text
        assert saver.wait().held > 0
    assert [each["model", "w"][0] for each in disk.written] == [1.0, 2.0]


@pytest.mark.parametrize("background", [True, False])
def test_an_error_of_the_writer_reaches_the_run(background):
    disk = Disk(CheckpointError("the disk is full"))
    disk.open.set()
    with BackgroundSaver(disk, background) as saver:
        saver.save([("model", "w", np.ones(3))], manifest(1))
        with pytest.raises(CheckpointError, match="the disk is full"):
            while saver.finished() is None:
                pass
    with (
        pytest.raises(CheckpointError, match="the disk is full"),
        BackgroundSaver(disk, background) as saver,
    ):
        saver.save([("model", "w", np.ones(3))], manifest(1))


def test_the_end_of_the_block_waits_whatever_ended_it(tmp_path, caplog):
    store = CheckpointStore(tmp_path)
    with (
        pytest.raises(RuntimeError, match="halted"),
        BackgroundSaver(store.save) as saver,
    ):
        saver.save([("model", "w", np.ones(100_000, np.float32))], manifest(1))
        raise RuntimeError("halted")
    assert read_checkpoint(store.newest()).manifest.step == 1
    disk = Disk(CheckpointError("the disk is full"))
    disk.open.set()
    with pytest.raises(RuntimeError, match="halted"), BackgroundSaver(disk) as saver:
        saver.save([], manifest(2))
        raise RuntimeError("halted")
    assert "failed, too: the disk is full" in caplog.text


def test_without_background_nothing_is_copied():
    weights, disk = np.ones(10, np.float32), Disk()
    disk.open.set()
    with BackgroundSaver(disk, background=False) as saver:
        saver.reserve([("model", "w", weights.shape, weights.dtype)])
        saver.save([("model", "w", weights)], manifest(1))
        assert len(disk.written) == 1 and saver._buffers == {}
        saved = saver.finished()
        assert saved.held >= saved.took


def test_the_copy_goes_on_until_somebody_needs_it_done(monkeypatch):
    weights, disk, go = np.ones(10, np.float32), Disk(), threading.Event()
    disk.open.set()
    copyto = np.copyto
    monkeypatch.setattr(np, "copyto", lambda *arrays: go.wait(10) and copyto(*arrays))
    with BackgroundSaver(disk) as saver:
        saver.save([("model", "w", weights)], manifest(1))  # returns, though nothing is copied yet
        assert not disk.written
        threading.Timer(0.1, go.set).start()
        saver.copied()
        weights += 1
        assert saver.wait().held >= 0.09
    assert disk.written[0]["model", "w"][0] == 1.0


def test_groups_and_shapes_may_change():
    disk = Disk()
    disk.open.set()
    with BackgroundSaver(disk) as saver:
        saver.save([("model", "w", np.ones(3)), ("optimizer", "m", np.ones(2))], manifest(1))
        saver.save([("model", "w", np.zeros((2, 2)))], manifest(2))
    assert disk.written[1].keys() == {("model", "w")} and disk.written[1]["model", "w"].shape == (2, 2)
