from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

from pangu_alpha.files.writing import (
    durable_file,
    gathering_file,
    json_text,
    replacing_file,
    write_all,
    write_all_at,
    write_bytes,
    write_json,
    write_text,
)


def test_a_failing_block_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "x"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing_file(path) as stream:
        stream.write("new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x"]


def _writes_beyond_the_limit(path, gathers=False):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a full disk: the write fails, errno EFBIG
    try:
        if gathers:
            with gathering_file(path) as stream:
                stream.writelines("line\n" for _ in range(1000))
        else:
            write_text(path, "n" * 5000)
    except OSError as error:
        print(error.filename, error.strerror)


@pytest.mark.parametrize("gathers", [False, True])
def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path, gathers):
    path = tmp_path / "x"
    write_text(path, "old")
    code = f"import tests.files.test_writing as t; t._writes_beyond_the_limit({str(path)!r}, {gathers})"
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); " + code.replace(
        "tests.files.", ""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    named, left = (f"{path}.partial", ["x", "x.partial"]) if gathers else (path, ["x"])
    assert done.stdout == f"{named} File too large\n", done.stderr
    assert path.read_text() == "old" and sorted(os.listdir(tmp_path)) == left


def test_a_gathering_file_appears_when_all_is_there(tmp_path):
    path = tmp_path / "x"
    write_text(path, "old")
    path.chmod(0o640)
    with gathering_file(path) as stream:
        stream.write("one\n")
        assert path.read_text() == "old" and (tmp_path / "x.partial").read_text() == "one\n"
        stream.write("two\n")
    assert path.read_text() == "one\ntwo\n" and os.listdir(tmp_path) == ["x"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_an_interrupted_block_wrote_is_never_overwritten(tmp_path):
    path = tmp_path / "x"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), gathering_file(path) as stream:
        stream.write("one\n")
        raise KeyboardInterrupt
    for _ in range(2):
        refused = pytest.raises(FileExistsError, match=r"x.partial: is there already.*remove it")
        with refused, gathering_file(path):
            raise AssertionError("the block does not run")
    assert path.read_text() == "old" and (tmp_path / "x.partial").read_text() == "one\n"
    with pytest.raises(ValueError), gathering_file(tmp_path / "y"):
        raise ValueError
    assert not (tmp_path / "y.partial").exists()  # it was empty
    with gathering_file("/dev/null") as stream:
        stream.write("a device is written as it is")


def test_bytes_are_replaced_as_text_is(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing_file(path, binary=True) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]
    with replacing_file(path, binary=True) as stream:
        stream.write(b"\xff\r\n")
    assert path.read_bytes() == b"\xff\r\n"


def test_a_link_is_followed_and_permissions_stay(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_users_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_device_is_written_as_it_is():
    write_text("/dev/null", "text")
    assert not os.path.isfile("/dev/null")


def test_json_is_json(tmp_path):
    values = {"loss": float("nan"), "inner": [float("inf"), 1.5, (float("-inf"),)], "名": "一"}
    write_json(tmp_path / "x", values)
    read = json.loads((tmp_path / "x").read_text("utf-8"), parse_constant=pytest.fail)
    assert read == {"loss": None, "inner": [None, 1.5, [None]], "名": "一"}
    assert json_text({"a": 1}, None) == '{"a": 1}'


def test_bytes_take_the_place_of_a_file_whole(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    write_bytes(path, b"\x89PNG\r\n\xff")
    assert path.read_bytes() == b"\x89PNG\r\n\xff"
    assert [*tmp_path.iterdir()] == [path]


def test_every_byte_is_written_whatever_a_single_write_takes(tmp_path, monkeypatch):
    write, pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, place: pwrite(descriptor, data[:3], place))
    with durable_file(tmp_path / "a") as descriptor:
        write_all(descriptor, b"0123456789")
        write_all_at(descriptor, memoryview(b"abcdefg"), 2)
    assert (tmp_path / "a").read_bytes() == b"01abcdefg9"


def test_a_disk_that_takes_nothing_is_an_error_not_a_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, place: 0)
    for write in (write_all, lambda descriptor, data: write_all_at(descriptor, data, 0)):
        with pytest.raises(OSError, match="takes no more bytes"), durable_file(tmp_path / "a") as descriptor:
            write(descriptor, b"x")
        (tmp_path / "a").unlink()


def test_writers_of_one_file_never_share_a_draft(tmp_path, monkeypatch):
    """Two hosts may have a process of one number, and a number of a process that was killed comes again."""
    monkeypatch.setattr(os, "getpid", lambda: 77)
    path, left = tmp_path / "x", tmp_path / ".x.77.draft"
    left.write_text("of an earlier version, killed")
    with replacing_file(path) as outer:
        outer.write("outer")
        outer.flush()
        write_text(path, "inner")
        with pytest.raises(RuntimeError), replacing_file(path) as failing:
            failing.write("half")
            raise RuntimeError
        assert path.read_text() == "inner" and len(os.listdir(tmp_path)) == 3  # the outer draft is there
    assert path.read_text() == "outer" and sorted(os.listdir(tmp_path)) == [".x.77.draft", "x"]
    assert left.read_text() == "of an earlier version, killed"


def test_the_longest_name_can_be_written(tmp_path):
    for name in ("n" * 255, "字" * 85):
        write_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"


def test_a_folder_that_cannot_be_written_is_named_by_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write_text(tmp_path / "absent" / "x", "text")
    assert error.value.filename == str(tmp_path / "absent" / "x")


def test_bytes_of_a_path_that_are_not_utf8_are_escaped_in_json(tmp_path):
    path = os.fsdecode("模型".encode("gbk"))
    write_json(tmp_path / "x", {"path": path})
    assert json.loads((tmp_path / "x").read_bytes()) == {"path": path}
