from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

from pangu_alpha.files.writing import json_text, replacing_file, write_json, write_text


def test_a_failing_block_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "x"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing_file(path) as stream:
        stream.write("new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x"]


def _writes_beyond_the_limit(path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a full disk: the write fails, errno EFBIG
    try:
        write_text(path, "n" * 5000)
    except OSError as error:
        print(error.filename, error.strerror)


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path):
    path = tmp_path / "x"
    write_text(path, "old")
    code = f"import tests.files.test_writing as t; t._writes_beyond_the_limit({str(path)!r})"
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); " + code.replace(
        "tests.files.", ""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{path} File too large\n", done.stderr
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x"]


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


def test_bytes_are_replaced_as_text_is(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing_file(path, binary=True) as stream:
        stream.write(b"\xff")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with replacing_file(path, binary=True) as stream:
        stream.write(b"\xff\r\n")
    assert path.read_bytes() == b"\xff\r\n" and os.listdir(tmp_path) == ["x"]
