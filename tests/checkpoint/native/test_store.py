from __future__ import annotations

import json
import logging
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.native import format
from pangu_alpha.checkpoint.native.format import Manifest, read_checkpoint
from pangu_alpha.checkpoint.native.store import CheckpointStore, resolve_resume
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError


def save(store: CheckpointStore, step: int, fill: float | None = None) -> Path:
    weight = np.full(1000, step if fill is None else fill, np.float32)
    return store.save({"model": {"w": weight}}, Manifest(step, samples=step, config={}))


def filled(path: Path) -> float:
    weight = read_checkpoint(path).load("model")["w"]
    assert (weight == weight[0]).all()
    return float(weight[0])


def flip(path: Path) -> None:
    with open(path / "model.safetensors", "r+b") as file:
        file.seek(-9, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep_last=3)


def test_an_empty_store_has_nothing(store: CheckpointStore):
    assert store.steps() == [] and store.newest() is None
    assert resolve_resume("auto", store) is None and resolve_resume("never", store) is None
    assert not store.root.exists()


def test_newest_is_the_highest_step(store: CheckpointStore):
    for step in (9, 10, 100_000_000):
        assert save(store, step) == store.path(step)
    assert store.steps() == [9, 10, 100_000_000]
    assert store.newest() == store.root / "step_100000000"
    assert store.path(9).name == "step_00000009"


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "left"),
    [
        (1, None, [9]),
        (2, None, [8, 9]),
        (1, 4, [4, 8, 9]),
        (3, 3, [3, 6, 7, 8, 9]),
        (99, None, [*range(1, 10)]),
    ],
)
def test_pruning(tmp_path: Path, keep_last: int, keep_every: int | None, left: list[int]):
    store = CheckpointStore(tmp_path, keep_last, keep_every)
    for step in range(1, 10):
        save(store, step)
    assert store.steps() == left
    assert len(list(tmp_path.iterdir())) == len(left)


def test_newest_passes_over_the_damaged_and_says_so(store: CheckpointStore, caplog):
    for step in (1, 2, 3):
        save(store, step)
    flip(store.path(3))
    (store.path(2) / "COMPLETE").unlink()
    with caplog.at_level(logging.WARNING):
        assert store.newest() == store.path(1)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "step_00000003" in caplog.messages[0] and "w: expected xxh3_128" in caplog.messages[0]
    assert "step_00000002: unfinished" in caplog.messages[1]
    flip(store.path(1))
    assert store.newest() is None


def test_a_folder_under_another_steps_name_is_passed_over(store: CheckpointStore, caplog):
    save(store, 1)
    shutil.copytree(store.path(1), store.path(7))
    assert store.newest() == store.path(1)
    assert "its manifest says step 1" in caplog.text


def test_pruning_neither_counts_nor_deletes_the_damaged(tmp_path: Path, caplog):
    store = CheckpointStore(tmp_path, keep_last=2)
    save(store, 1)
    save(store, 2)
    (store.path(2) / "model.safetensors").unlink()
    save(store, 3)
    assert store.steps() == [1, 2, 3]
    assert "left where it is" in caplog.text and "step_00000002" in caplog.text
    save(store, 4)
    assert store.steps() == [2, 3, 4]


def test_a_save_never_deletes_itself_or_what_is_later(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep_last=1)
    save(store, 10)
    save(store, 5)  # went back
    assert store.steps() == [5, 10]


def test_saving_a_step_again_replaces_it(store: CheckpointStore):
    save(store, 1, fill=1.0)
    save(store, 1, fill=2.0)
    assert filled(store.path(1)) == 2.0
    assert [path.name for path in store.root.iterdir()] == ["step_00000001"]


def test_saving_over_a_damaged_step_keeps_it_under_another_name(tmp_path: Path, caplog):
    store = CheckpointStore(tmp_path, keep_last=1)
    save(store, 1)
    for number in (1, 2):
        flip(store.path(1))
        save(store, 1, fill=2.0)
        assert filled(store.newest()) == 2.0
        assert f"kept as step_00000001.damaged-{number}, remove it by hand" in caplog.text
    assert "aside" not in caplog.text  # a name that the folder had for a moment
    save(store, 2)
    save(store, 3)
    kept = {"step_00000001.damaged-1", "step_00000001.damaged-2", "step_00000003"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_full_disk_leaves_the_previous_ones(store: CheckpointStore, monkeypatch):
    save(store, 1)
    usage = format.shutil.disk_usage(store.root)
    monkeypatch.setattr(format.shutil, "disk_usage", lambda _: usage._replace(free=0))
    for step in (1, 2):
        with pytest.raises(CheckpointError, match="bytes needed, 0 free"):
            save(store, step, fill=5.0)
    assert filled(store.newest()) == 1.0
    assert [path.name for path in store.root.iterdir()] == ["step_00000001"]


def leftover(store: CheckpointStore, writer: str) -> Path:
    path = store.root / f".tmp-step_00000005-{writer}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"half")
    return path


def test_only_what_dead_writers_of_this_machine_left_is_cleaned(store: CheckpointStore, caplog):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        birth = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        host = socket.gethostname()
        dead = leftover(store, f"{process.pid}-{int(birth) - 1}@{host}")  # the number was handed out again
        alive = leftover(store, f"{process.pid}-{birth}@{host}")
        elsewhere = leftover(store, f"{process.pid}-1@elsewhere")
        users = [store.root / name for name in (".tmp-mine", "notes.txt", "step_1", "step_00000009.bak")]
        for path in users:
            path.write_text("precious")
        assert store.newest() is None
        assert caplog.text.count("never finished") == 3
        save(store, 1)
        assert not dead.exists() and alive.exists() and elsewhere.exists()
        assert all(path.read_text() == "precious" for path in users)
    finally:
        process.communicate()
    save(store, 2)
    assert not alive.exists() and elsewhere.exists()


def test_resume_never_refuses_where_a_checkpoint_lies(store: CheckpointStore):
    save(store, 7)
    with pytest.raises(ValueError, match="the last of step 7, and resume is 'never'"):
        resolve_resume("never", store)


def test_resume_auto_takes_the_newest_whole(store: CheckpointStore):
    save(store, 7)
    save(store, 8)
    flip(store.path(8))
    assert resolve_resume("auto", store) == store.path(7)
    flip(store.path(7))
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is whole.*move them away"):
        resolve_resume("auto", store)


def test_resume_from_a_path_takes_that_one_or_refuses(store: CheckpointStore, tmp_path: Path, caplog):
    for step in (7, 8):
        save(store, step)
    assert resolve_resume(str(store.path(8)), store) == store.path(8)
    assert not caplog.messages
    assert resolve_resume(str(store.path(7)), store) == store.path(7)
    assert "later checkpoints than step 7, up to step 8" in caplog.text
    for folder in (store.root, store.root.parent):
        with pytest.raises(CheckpointError, match="give one of them, such as .*step_00000008"):
            resolve_resume(str(folder), store)
    flip(store.path(8))
    with pytest.raises(CheckpointError, match="w: expected xxh3_128"):
        resolve_resume(str(store.path(8)), store)
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve_resume(str(tmp_path / "gone"), store)


WRITER = """
import os, signal, sys
import numpy as np
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.native.store import CheckpointStore

assert "mindspore" not in sys.modules
store = CheckpointStore(sys.argv[1], keep_last=1)

def save(step, fill, size):
    arrays = {"w": np.full(size, fill, np.float32)}
    store.save({"model": arrays, "optimizer": arrays}, Manifest(step, samples=step, config={}))
"""

RANDOM = (
    WRITER
    + """
step = max(store.steps(), default=0)
while True:
    step += 1
    save(step, step, 300_000)
    os.write(1, b"%d\\n" % step)
"""
)


def test_kill_at_random_moments_loses_nothing_that_was_saved(store: CheckpointStore):
    draw = random.Random(3)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", RANDOM, store.root], stdout=subprocess.PIPE)
        assert select.select([process.stdout], [], [], 30)[0], "the writer does not start"
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        saved = int(process.communicate()[0].split()[-1])
        newest = store.newest()
        assert newest is not None
        assert saved <= read_checkpoint(newest, verify=False).manifest.step <= saved + 1
        assert filled(newest) == read_checkpoint(newest).manifest.step


# Every write, flush, renaming and removal is a moment to die at; the child dies before the n-th.
EVERY_MOMENT = (
    WRITER
    + """
left = int(sys.argv[3])

def tick():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

def ticking(function):
    return lambda *arguments: (tick(), function(*arguments))[1]

os.write, os.fsync = ticking(os.write), ticking(os.fsync)
sys.addaudithook(lambda event, _: event in {"os.rename", "os.remove", "os.rmdir", "os.mkdir"} and tick())
save(int(sys.argv[2]), 9.0, 1000)
"""
)


@pytest.mark.parametrize("step", [6, 5])  # a new one, after which 5 goes; and 5 once more
def test_kill_before_every_single_operation(tmp_path: Path, step: int, forker):
    for moment in range(200):
        store = CheckpointStore(tmp_path / str(moment), keep_last=1)
        save(store, 5)
        killed = forker(EVERY_MOMENT, [str(store.root), str(step), str(moment)])
        newest = store.newest()
        assert newest is not None, f"nothing whole after a kill at operation {moment}"
        assert (newest.name, filled(newest)) in {("step_00000005", 5.0), (f"step_{step:08d}", 9.0)}
        save(store, 7)
        assert store.steps() == [7]
        assert not [path for path in store.root.iterdir() if path.name.startswith(".tmp")]
        if not killed:
            break
    assert not killed and moment > 15


@pytest.fixture(scope="module")
def forker():
    """Runs a script in forks of one fresh process, which spares each the imports; True if it was killed."""
    parent = """
import json, os, sys
import numpy, xxhash, pangu_alpha.checkpoint.native.store
for line in sys.stdin:
    script, arguments = json.loads(line)
    pid = os.fork()
    if pid == 0:
        sys.argv = ["", *arguments]
        exec(script, {"__name__": "__main__"})
        os._exit(0)
    print(os.waitpid(pid, 0)[1], flush=True)
"""

    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(script: str, arguments: list[str]) -> bool:
        process.stdin.write(json.dumps([script, arguments]) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        assert status in (0, signal.SIGKILL), f"the writer failed: {status}"
        return status != 0

    yield run
    process.communicate()


def test_a_link_in_the_place_of_an_old_step_is_removed_alone(tmp_path: Path, caplog):
    """Someone moved a checkpoint to a larger disk; another link has a dead process's scratch name."""
    store, far, victim = CheckpointStore(tmp_path / "run", keep_last=1), tmp_path / "far", tmp_path / "victim"
    save(store, 1).rename(far)
    store.path(1).symlink_to(far)
    victim.mkdir()
    (victim / "thesis.txt").write_text("precious")
    scratch = store.root / f".tmp-step_00000009-999999-1@{socket.gethostname()}"
    scratch.symlink_to(victim)
    for step in (2, 3):
        save(store, step)
    assert sorted(path.name for path in store.root.iterdir()) == [scratch.name, "step_00000003"]
    assert filled(far) == 1.0 and [path.name for path in victim.iterdir()] == ["thesis.txt"]
    assert caplog.text.count("WARNING") == 1
    assert f"step_00000001: a link, removed; what it points to, {far}, stays" in caplog.text


def test_a_link_to_nothing_in_the_place_of_an_old_step_is_named(tmp_path: Path, caplog):
    store = CheckpointStore(tmp_path / "run", keep_last=1)
    save(store, 1).rename(tmp_path / "gone")
    store.path(1).symlink_to(tmp_path / "nowhere")
    save(store, 2)
    assert store.path(1).is_symlink() and "left where it is, remove it by hand" in caplog.text


@pytest.mark.parametrize("target", ["far", "nowhere"])
def test_a_link_in_the_place_of_the_saved_step_gives_way(tmp_path: Path, target: str, caplog):
    store, far = CheckpointStore(tmp_path / "run"), tmp_path / "far"
    save(store, 4, fill=1.0).rename(far)
    store.path(4).symlink_to(tmp_path / target)
    save(store, 4, fill=2.0)
    assert not store.path(4).is_symlink() and filled(store.path(4)) == 2.0 and filled(far) == 1.0
    names = sorted(path.name for path in store.root.iterdir())
    assert names == ["step_00000004", "step_00000004.damaged-1"][: 1 + (target == "nowhere")]
    assert "None" not in caplog.text
