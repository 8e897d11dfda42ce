"""What every reader asks of a file before it trusts it."""

from __future__ import annotations

import os
import socket

import pytest

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.untrusted import check_file, few, files_below, is_shape, mapping_of, read_mapping

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 5242880\n"


def make(kind, path):
    """Something that is no file, under the name of one."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        socket.socket(socket.AF_UNIX).bind(str(path))


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
def test_only_files_are_opened(tmp_path, kind):
    make(kind, tmp_path / "x")
    with pytest.raises(CheckpointError, match=f"x: is a {kind}; give the path of a file"):
        check_file(tmp_path / "x")


def test_a_git_lfs_pointer_is_named_with_the_size_of_its_file(tmp_path):
    (tmp_path / "x").write_text(POINTER)
    with pytest.raises(
        CheckpointError, match=r"x: a git-LFS pointer of a file of 5,242,880 bytes.*git lfs pull"
    ):
        check_file(tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "x.json: .* more than 100 deep"),
        ("[4]", r"x.json: not a JSON object, but \[4\]"),
        ('{"a": 1', "x.json, line 1, column 8: not JSON"),
        (POINTER, "x.json: a git-LFS pointer"),
    ],
)
def test_json_that_is_no_object_is_refused(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CheckpointError, match=said):
        read_mapping(tmp_path / "x.json")


def test_not_a_number_of_older_manifests_is_read():
    assert str(mapping_of('{"loss": NaN}', "x")["loss"]) == "nan"


@pytest.mark.parametrize(
    ("shape", "right"),
    [
        ([], True), ([2, 3], True), ((0, 4), True), ([1] * 32, True),
        ([1] * 33, False), ([1] * 60_000, False), ([1 << 32, 1 << 31], False), ([1 << 40, 1 << 40, 0], False),
        ([-1], False), ([True], False), ([1.0], False), ("2", False), (None, False), ([1 << 63], False),
    ],
)  # fmt: skip
def test_shapes_that_some_array_has(shape, right):
    assert is_shape(shape) == right


@pytest.mark.parametrize("name", ["../a", "/etc/hostname", "b/../../a", "..", "", "a\0b", 5, None, ["a"], {}])
def test_an_index_names_no_file_outside_its_folder(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"index.json: names .* as the file of 'w'; only a file in"):
        files_below(tmp_path, tmp_path / "index.json", {"w": name})


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "port"
    (folder / "below").mkdir(parents=True)
    (folder / "link").symlink_to("../secret")
    with pytest.raises(CheckpointError, match="its file 'link' is a link out of the folder"):
        files_below(folder, folder / "index.json", {"w": "link"})
    (folder / "way").symlink_to(tmp_path)
    with pytest.raises(CheckpointError, match="its file 'way/secret' is a link out"):
        files_below(folder, folder / "index.json", {"w": "way/secret"})


def test_files_below_the_folder_are_found_once(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b").write_text("x")
    (tmp_path / "a").symlink_to("sub/b")
    files = files_below(tmp_path, tmp_path / "i", {"1": "sub/b", "2": "a", "3": "sub/b", "4": "lost"})
    assert files == [tmp_path / "a", tmp_path / "lost", tmp_path / "sub/b"]


def test_the_cache_of_hugging_face_links_to_its_own_files(tmp_path):
    blob, snapshot = tmp_path / "blobs/abc", tmp_path / "snapshots/123"
    snapshot.mkdir(parents=True)
    blob.parent.mkdir()
    blob.write_text("x")
    (snapshot / "a").symlink_to("../../blobs/abc")
    assert files_below(snapshot, snapshot / "i", {"w": "a"}) == [snapshot / "a"]


def test_lists_of_names_are_short_and_on_one_line():
    assert few(["a", "b", "c"], 2) == "a, b and 1 more"
    assert few(["x\n\x1b[2J"]) == r"x\n\x1b[2J"
    assert len(few(["x" * 10_000])) <= 200
