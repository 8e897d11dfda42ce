"""What lies beside a target under the scratch folder's names: ours is used and removed, all else is left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pangu_alpha.checkpoint.moving.resumable import ResumableFolder
from pangu_alpha.checkpoint.native import durable
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError

DIGEST = "0123456789abcdef0123"
MERGED = ".merged-made-0123456789abcdef"


def work(root, digest=DIGEST):
    """One piece of work, done."""
    folder = ResumableFolder(root / "made", digest)
    if folder.is_finished():
        return
    with folder.open() as begun:
        if not begun:
            folder.content.mkdir()
            (folder.content / "model").write_text(digest)
            folder.begin()
        folder.record({"model": ["sum"]})
        folder.publish()


def half_done(root, digest=DIGEST):
    folder = ResumableFolder(root / "made", digest)
    with pytest.raises(KeyboardInterrupt), folder.open():
        folder.content.mkdir()
        (folder.content / "model").write_text(digest)
        folder.begin()
        raise KeyboardInterrupt
    return folder


@pytest.fixture
def victim(tmp_path):
    """A user's folder with all the names that a scratch folder has."""
    folder = tmp_path / "victim"
    (folder / "content").mkdir(parents=True)
    for name in ("thesis.txt", "journal.jsonl", "content/photo.jpg"):
        (folder / name).write_text("precious")
    yield folder
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == ["content/photo.jpg", "journal.jsonl", "thesis.txt"]
    assert all((folder / name).read_text() == "precious" for name in left)


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_a_link_in_the_place_of_the_scratch_folder_is_not_followed(tmp_path, victim):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / ".merging-made").symlink_to(victim)
    with pytest.raises(CheckpointError, match=r"\.merging-made: is a link.*Nothing was touched; move it"):
        work(shared)
    assert names(shared) == [".merging-made"] and (shared / ".merging-made").is_symlink()


def test_nor_is_one_to_half_done_work_of_this_very_kind(tmp_path):
    """It holds a journal of the work: neither is it gone on with, nor taken for work that is done."""
    (tmp_path / "far").mkdir()
    half_done(tmp_path / "far")
    (tmp_path / ".merging-made").symlink_to(tmp_path / "far" / ".merging-made")
    with pytest.raises(CheckpointError, match="is a link"):
        work(tmp_path)
    shutil.rmtree(tmp_path / "far/.merging-made/content")  # as after the rename to `made`
    (tmp_path / "made").mkdir()
    with pytest.raises(CheckpointError, match="made: exists already"):
        work(tmp_path)
    assert (tmp_path / "far/.merging-made/journal.jsonl").is_file()


def test_nor_is_one_in_the_place_of_its_last_name(tmp_path, victim):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / MERGED).symlink_to(victim)
    work(shared)
    assert names(shared / "made") == ["model"] and (shared / MERGED).is_symlink()
    with pytest.raises(CheckpointError, match="made: exists already"):  # a link does not say that it was done
        work(shared)


@pytest.mark.parametrize("name", ["content", "journal.jsonl"])
@pytest.mark.parametrize("other", ["other work", DIGEST])
def test_links_inside_are_not_followed(tmp_path, victim, name, other):
    folder = half_done(tmp_path, other)
    shutil.move(folder.scratch / name, tmp_path / "aside")
    (folder.scratch / name).symlink_to(victim / name)
    with pytest.raises(CheckpointError, match=f"holds {name}, a link, which is not of this work"):
        work(tmp_path)
    assert (folder.scratch / name).is_symlink()


@pytest.mark.parametrize("other", ["other work", DIGEST])
def test_what_a_user_put_into_it_stays(tmp_path, other):
    folder = half_done(tmp_path, other)
    (folder.scratch / "notes").mkdir()
    (folder.scratch / "notes" / "a.txt").write_text("precious")
    with pytest.raises(CheckpointError, match=r"\.merging-made: holds notes, which is not of this work"):
        work(tmp_path)
    assert names(folder.scratch) == ["content", "journal.jsonl", "notes"]
    (folder.scratch / "notes").rename(tmp_path / "notes")
    work(tmp_path)
    assert names(tmp_path) == ["made", "notes"] and names(tmp_path / "notes") == ["a.txt"]


def test_what_appears_in_it_meanwhile_stays_too(tmp_path, monkeypatch):
    publish = ResumableFolder.publish

    def publishing(folder):
        (folder.scratch / "notes.txt").write_text("precious")
        publish(folder)

    monkeypatch.setattr(ResumableFolder, "publish", publishing)
    work(tmp_path)
    assert names(tmp_path) == [MERGED, "made"] and names(tmp_path / MERGED) == ["notes.txt"]


def test_a_pipe_in_the_place_of_the_journal_is_not_waited_for(tmp_path):
    folder = half_done(tmp_path)
    (folder.scratch / "journal.jsonl").unlink()
    os.mkfifo(folder.scratch / "journal.jsonl")
    with pytest.raises(CheckpointError, match=r"holds journal\.jsonl, which is not of this work"):
        work(tmp_path)
    (tmp_path / "made").mkdir()
    with pytest.raises(CheckpointError, match="made: exists already"):
        work(tmp_path)


def test_another_users_folder_is_not_used(tmp_path, monkeypatch):
    half_done(tmp_path)
    monkeypatch.setattr(durable, "_is_own", lambda owner, parent: False)
    with pytest.raises(CheckpointError, match=r"\.merging-made: is another user's"):
        work(tmp_path)
    assert names(tmp_path / ".merging-made") == ["content", "journal.jsonl"]


def test_whose_a_folder_is(tmp_path, monkeypatch):
    """A file server may write all that root makes as another user's, so what is made anew decides."""
    own = os.stat(tmp_path).st_uid
    assert durable._is_own(own, tmp_path) and not durable._is_own(own + 1, tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert durable._is_own(own, tmp_path) and not names(tmp_path)


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / ".merging-made").write_text("precious")
    with pytest.raises(CheckpointError, match=r"\.merging-made: is no folder"):
        work(tmp_path)
    assert (tmp_path / ".merging-made").read_text() == "precious"


def test_nobody_else_can_put_anything_into_it(tmp_path):
    folder = half_done(tmp_path)
    assert folder.scratch.stat().st_mode & 0o777 == 0o700
    folder.scratch.chmod(0o777)  # as an older version left it under a umask of 0
    half_done(tmp_path, "other work")
    assert folder.scratch.stat().st_mode & 0o777 == 0o700
    mask = os.umask(0o022)
    os.umask(mask)
    work(tmp_path)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o777 & ~mask  # the result is as open as ever


def test_names_of_removed_files_on_nfs_are_no_strangers(tmp_path):
    folder = half_done(tmp_path, "other work")
    Path(folder.scratch / ".nfs0000000000a1b2c300000001").write_text("")
    work(tmp_path)
    assert names(tmp_path / "made") == ["model"]
