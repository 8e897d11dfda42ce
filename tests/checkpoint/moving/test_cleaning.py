"""What kills left is listed; on request it is removed where nobody can need it, and nothing else ever is."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.checkpoint.moving.cleaning import leftovers, remove
from pangu_alpha.checkpoint.native.durable import writer_name
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.cli.checkpoint import main

HOST = socket.gethostname()
DEAD, FAR = f"999999999-1@{HOST}", "7-1@node7"


def fill(path: Path, text: str = "half") -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(text)
    return path


@pytest.fixture
def run(tmp_path):
    """A run with one of everything."""
    run = tmp_path / "run"
    checkpoints = run / "checkpoints"
    for step, writer in ((6, DEAD), (8, writer_name()), (4, FAR)):
        fill(checkpoints / f".tmp-step_0000000{step}-{writer}")
    fill(checkpoints / "step_00000002" / f".tmp-rank_00003-{FAR}")
    for name in ("step_00000001", "step_00000001.aside-1"):
        fill(checkpoints / name)
    fill(checkpoints / "step_00000001.damaged-2")
    (checkpoints / f".shared-{DEAD}").touch()
    (run / ".config.yaml.77.draft").write_text("half")  # as earlier versions called them
    (run / ".plan.json.77-0123456789abcdef.draft").write_text("half")
    merging = fill(run / ".merging-whole" / "content").parent
    (merging / "journal.jsonl").write_bytes(b'{"digest": "a"}\n["model/a", ["b"]]\n["model/b", ["c"]]\n["mod')
    fill(run / ".merged-whole-0123456789abcdef" / "content")
    return run


def users(run) -> list[Path]:
    """Folders and links of a user, whose names are nearly ours."""
    checkpoints, victim = run / "checkpoints", fill(run.parent / "victim")
    own = [".tmp-mine", ".merging", ".merged-whole-mine", f".tmp-{DEAD}x", "step_00000009.aside"]
    for name in own:
        fill(checkpoints / name)
    links = [f".tmp-step_00000005-{DEAD}", ".merged-a-0123456789abcdef", f".shared-{FAR}", "step_00000003"]
    for name in links:
        (checkpoints / name).symlink_to(victim)
    fill(victim / f".tmp-rank_00001-{DEAD}")
    return [checkpoints / name for name in (*own, *links)]


def states(path):
    return {str(one.path.relative_to(path)): (one.state, one.host) for one in leftovers(path)}


def test_everything_is_found_and_told_apart(run):
    users(run)
    assert states(run) == {
        ".merged-whole-0123456789abcdef": ("gone", ""),
        ".merging-whole": ("interrupted", ""),
        ".config.yaml.77.draft": ("kept", ""),
        ".plan.json.77-0123456789abcdef.draft": ("kept", ""),
        f"checkpoints/.shared-{DEAD}": ("gone", HOST),
        f"checkpoints/.tmp-step_00000004-{FAR}": ("elsewhere", "node7"),
        f"checkpoints/.tmp-step_00000006-{DEAD}": ("gone", HOST),
        f"checkpoints/.tmp-step_00000008-{writer_name()}": ("alive", HOST),
        "checkpoints/step_00000001.aside-1": ("kept", ""),
        "checkpoints/step_00000001.damaged-2": ("kept", ""),
        f"checkpoints/step_00000002/.tmp-rank_00003-{FAR}": ("elsewhere", "node7"),
    }


def test_a_checkpoint_whose_only_copy_was_set_aside_is_not_said_to_be_needless(run, capsys):
    checkpoints = run / "checkpoints"
    fill(checkpoints / "step_00000012.aside-1")  # killed between the two renames
    assert states(run)["checkpoints/step_00000012.aside-1"] == ("interrupted", "")
    assert main(["clean", str(run), "--remove"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "step_00000012.aside-1" in line)
    assert "the only step_00000012: a killed save set it aside" in line and "goes on with it" in line
    assert (checkpoints / "step_00000012.aside-1").is_dir()


def test_sizes_ages_and_journals(run):
    scratch = run / "checkpoints" / f".tmp-step_00000006-{DEAD}"
    for path in (scratch, scratch / "model.safetensors"):
        os.utime(path, (1000, 1000))
    with open(scratch / "optimizer.safetensors", "wb") as file:
        file.truncate(1 << 30)  # as a merge lays out its files: nothing of it is on the disk yet
    os.utime(scratch / "optimizer.safetensors", (3000, 3000))
    os.utime(scratch, (1000, 1000))
    found = {one.path.name: one for one in leftovers(run)}
    assert (found[scratch.name].bytes, found[scratch.name].written) == (4, 3000.0)
    assert found[".merging-whole"].what == "an unfinished merge or export into whole, 2 tensors done"
    assert found[scratch.name].what == "an unfinished step_00000006"


def test_only_what_is_known_to_be_dead_is_removed(run):
    mine = [*users(run), run / ".merged-whole-0123456789abcdef" / "notes.txt"]
    mine[-1].write_text("precious")
    found = leftovers(run)
    assert [(one.path.name, reason) for one, reason in remove(found)] == [
        (".merged-whole-0123456789abcdef", "something else lies in it"),
        (f".shared-{DEAD}", ""),
        (f".tmp-step_00000006-{DEAD}", ""),
    ]
    kept = [one.path for one in found if one.state != "gone"]
    assert all(path.exists() for path in (*kept, *mine))
    assert (run.parent / "victim" / f".tmp-rank_00001-{DEAD}" / "model.safetensors").exists()


def test_another_hosts_are_removed_when_it_is_named(run):
    found = leftovers(run)
    removed = [one.path.name for one, reason in remove(found, ["node7"]) if one.state == "elsewhere"]
    assert removed == [f".tmp-step_00000004-{FAR}", f".tmp-rank_00003-{FAR}"]
    assert (run / "checkpoints" / "step_00000002").is_dir()
    with pytest.raises(CheckpointError, match="node8: nothing here is of that host; there is .* node7"):
        list(remove(found, ["node8"]))
    with pytest.raises(CheckpointError, match="is this host"):
        list(remove(found, [HOST]))


def test_a_merge_that_runs_is_alive(run):
    descriptor = os.open(run / ".merging-whole", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert states(run)[".merging-whole"] == ("alive", "")
    finally:
        os.close(descriptor)
    assert states(run)[".merging-whole"] == ("interrupted", "")


def test_the_target_of_a_merge_that_was_interrupted(run):
    names = [one.path.name for one in leftovers(run / "whole")]
    assert names == [".merged-whole-0123456789abcdef", ".merging-whole"]
    with pytest.raises(CheckpointError, match="other: there is no such folder, and nothing unfinished"):
        leftovers(run / "other")


def test_the_command(run, capsys):
    assert main(["clean", str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    line = next(line for line in said if f"00006-{DEAD}" in line)
    assert f"an unfinished step_00000006, of host {HOST}; " in line and "ago; nobody needs it" in line
    assert [line.rpartition(": ")[2] for line in said if "of host node7: if" in line] == [
        "--remove --host node7"
    ]
    assert len(leftovers(run)) == 11  # nothing was removed

    with pytest.raises(ValueError, match="--host: says whose folders are to be removed, too; give --remove"):
        main(["clean", str(run), "--host", "node7"])
    assert main(["clean", str(run), "--remove", "--host", "node7"]) == 0
    said = capsys.readouterr().out
    assert said.count(": removed, ") == 5
    assert {one.state for one in leftovers(run)} == {"alive", "interrupted", "kept"}


def test_the_command_where_nothing_is_left(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    main(["clean", str(tmp_path / "run")])
    assert capsys.readouterr().out == f"{tmp_path}/run: nothing is left behind\n"
    (tmp_path / "file").write_text("x")
    for name, why in (("file", "no folder"), ("nothing", "no such folder")):
        with pytest.raises(CheckpointError, match=f"{name}: there is {why}"):
            main(["clean", str(tmp_path / name)])


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path, capsys):
    fill(tmp_path / ".tmp-step\x1b[31m-1-1@host\x07")
    main(["clean", str(tmp_path)])
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\x07" not in said and r".tmp-step\x1b[31m-1-1@host\x07" in said


def test_a_draft_that_was_left_is_listed_by_the_name_it_has_today(tmp_path):
    script = "import os, sys; from pangu_alpha.files.writing import replacing_file as r\n"
    script += "with r(sys.argv[1] + '/config.yaml') as file: file.flush(); os._exit(1)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    (found,) = leftovers(tmp_path)
    assert found.state == "kept" and found.what.startswith("a draft of config.yaml by process ")
