"""The lock of a folder: real processes that hold it, die and leave it behind; other hosts by their files."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from pangu_alpha.files import lock
from pangu_alpha.files.lock import LOCK_NAME, SILENCE, FolderInUseError, hold_folder, holder_of

HOLD = """
import os, sys
from pangu_alpha.files.lock import hold_folder
with hold_folder(sys.argv[1], "training"):
    if "fork" in sys.argv and not os.fork():
        sys.stdin.read()
        os._exit(0)
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""
# All wait for a character, so that they ask for the folder at once.
CONTEND = """
import sys
from pangu_alpha.files.lock import FolderInUseError, hold_folder
sys.stdin.read(1)
try:
    with hold_folder(sys.argv[1], "training"):
        print("held", flush=True)
        sys.stdin.read()
except FolderInUseError as error:
    print("refused:", error, flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate()


@pytest.fixture
def without_flock(monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)


def leave(folder, **changes: object) -> None:
    """The lock file of a process that was killed, changed as told."""
    folder.mkdir(exist_ok=True)
    left = dataclasses.replace(lock._ourselves("training"), **changes)
    (folder / LOCK_NAME).write_text(json.dumps(dataclasses.asdict(left)))


ELSEWHERE = {"host": "node-7", "boot": "another", "processes": "pid:[1]", "pid": 4711}


def refused(folder, reason: str) -> None:
    with pytest.raises(FolderInUseError, match=reason), hold_folder(folder, "training"):
        pass


def grow_silent(folder, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / LOCK_NAME, (then, then))


def test_a_folder_is_held_named_and_left_clean(tmp_path):
    folder = tmp_path / "new" / "run"
    with hold_folder(folder, "training"):
        holder = holder_of(folder)
        assert (holder.doing, holder.pid) == ("training", os.getpid())
    assert os.listdir(folder) == [] and holder_of(folder) is None


def test_the_second_process_is_refused_and_the_killed_one_s_lock_is_taken_over(tmp_path):
    process = start(HOLD, tmp_path)
    pid = process.stdout.readline().strip()
    refused(tmp_path, rf"in use since 2.* by training, process {pid} on this host; wait")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder_of(tmp_path).pid == int(pid)
    with hold_folder(tmp_path, "preprocess"):
        assert holder_of(tmp_path).pid == os.getpid()
    assert os.listdir(tmp_path) == []
    finish(process)


def test_a_forked_child_of_a_killed_process_still_holds_and_is_told_of(tmp_path):
    process = start(HOLD, tmp_path, "fork")
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    refused(tmp_path, "has ended, but one that it started still runs.*fuser")
    process.stdin.close()  # lets the child end
    process.stdout.read()
    with hold_folder(tmp_path, "training"):
        assert holder_of(tmp_path).pid == os.getpid()


@pytest.mark.parametrize("stale", [False, True])
def test_of_several_that_ask_at_once_one_gets_it(tmp_path, stale):
    if stale:
        leave(tmp_path, pid=2**22 + 1)
    processes = [start(CONTEND, tmp_path) for _ in range(5)]
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    said = [process.stdout.readline() for process in processes]
    assert sorted(line.split(":")[0].strip() for line in said) == ["held", *["refused"] * 4]
    for process in processes:
        finish(process)
    assert os.listdir(tmp_path) == []


def test_another_host_s_lock_is_respected_until_it_has_been_silent(tmp_path, caplog):
    leave(tmp_path, **ELSEWHERE)
    grow_silent(tmp_path, SILENCE - 60)
    refused(tmp_path, r"4711 on host 'node-7'.*1,7\d\d seconds ago.*remove .*in-use")
    assert holder_of(tmp_path).host == "node-7" and os.listdir(tmp_path) == [LOCK_NAME]
    grow_silent(tmp_path, SILENCE + 60)
    with hold_folder(tmp_path, "training"):
        assert holder_of(tmp_path).pid == os.getpid()
    assert "taken over from training, process 4711 on node-7" in caplog.text


def test_what_a_process_of_the_same_number_and_host_left_is_in_nobody_s_way(tmp_path):
    """In containers process 1 is always there, and hosts may have one name."""
    (tmp_path / f"{LOCK_NAME}.{socket.gethostname()}.{os.getpid()}").write_text("left by a kill")
    leave(tmp_path, **ELSEWHERE)
    refused(tmp_path, "4711 on host 'node-7'")


def test_a_living_process_of_this_host_is_respected_however_long_it_was_silent(tmp_path):
    leave(tmp_path)  # names this very process, but nobody has flock, as on a file system that only pretends
    grow_silent(tmp_path, 10 * SILENCE)
    refused(tmp_path, f"process {os.getpid()} on this host")


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"[" * 3000, b"{}", b'{"pid": "x"}'])
def test_a_lock_file_that_names_nobody_and_is_locked_by_nobody_is_taken(tmp_path, content):
    (tmp_path / LOCK_NAME).write_bytes(content)
    with hold_folder(tmp_path, "training"):
        assert holder_of(tmp_path).pid == os.getpid()


def test_without_flock_the_process_table_and_the_touch_decide(tmp_path, without_flock):
    with hold_folder(tmp_path, "training"), pytest.raises(FolderInUseError, match=f"{os.getpid()} on this"):
        lock._taken(tmp_path / LOCK_NAME, lock._ourselves("training"))
    leave(tmp_path, birth="1")  # its number was handed out again
    with hold_folder(tmp_path, "training"):
        assert holder_of(tmp_path).birth != "1"
    leave(tmp_path, **ELSEWHERE)
    refused(tmp_path, "node-7")
    (tmp_path / LOCK_NAME).write_bytes(b"")  # being written at this moment
    refused(tmp_path, "another process is working in it")
    grow_silent(tmp_path, SILENCE + 60)
    with hold_folder(tmp_path, "training"):
        pass
    assert os.listdir(tmp_path) == []


def test_without_flock_a_lock_taken_in_between_is_put_back(tmp_path, without_flock):
    leave(tmp_path, birth="1")
    descriptor = os.open(tmp_path / LOCK_NAME, os.O_RDWR)
    os.unlink(tmp_path / LOCK_NAME)
    leave(tmp_path, **ELSEWHERE)  # by the one that was quicker
    assert lock._set_aside(tmp_path / LOCK_NAME, descriptor) is False
    os.close(descriptor)
    assert holder_of(tmp_path).host == "node-7" and os.listdir(tmp_path) == [LOCK_NAME]


def test_a_link_of_that_name_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / LOCK_NAME).symlink_to("mine")
    with pytest.raises(OSError, match="symbolic links"), hold_folder(tmp_path, "training"):
        pass
    assert (tmp_path / "mine").read_text() == "precious"


def test_names_in_a_message_are_escaped(tmp_path):
    leave(tmp_path, **{**ELSEWHERE, "doing": "\x1b[31mtraining"})
    with pytest.raises(FolderInUseError) as caught, hold_folder(tmp_path, "training"):
        pass
    assert "\x1b" not in str(caught.value) and r"\x1b[31mtraining" in str(caught.value)


@pytest.mark.parametrize("kind", ["no folder", "a link to nothing"])
def test_what_is_no_folder_is_said_to_be_none(tmp_path, kind):
    path = tmp_path / "run"
    path.write_text("mine") if kind == "no folder" else path.symlink_to(tmp_path / "nothing")
    with (
        pytest.raises(NotADirectoryError, match=f"is {kind}; give the path of a folder"),
        hold_folder(path, "x"),
    ):
        pass
    assert os.listdir(tmp_path) == ["run"]


def test_a_full_disk_is_said_and_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock, "write_all_at", full)
    with pytest.raises(OSError, match="No space left") as caught, hold_folder(tmp_path, "training"):
        pass
    assert caught.value.filename == str(tmp_path / LOCK_NAME) and os.listdir(tmp_path) == []


def test_the_lock_of_another_user_is_said_to_be_one(tmp_path, monkeypatch):
    leave(tmp_path)
    opened = os.open

    def guarded(path, flags, mode=0o777):  # root, who runs the tests in a container, may open anything
        if not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, mode)

    monkeypatch.setattr(lock.os, "open", guarded)
    refused(tmp_path, f"{LOCK_NAME}: is another user's.*if nobody does, remove it")
