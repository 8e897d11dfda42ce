"""The command's options, the table, and a machine without NPUs."""

from __future__ import annotations

import dataclasses

import pytest

from pangu_alpha.__main__ import main
from pangu_alpha.cli.check_cluster.command import longest_silence
from pangu_alpha.cli.check_cluster.options import parse
from pangu_alpha.cluster_check.check import Measurement
from pangu_alpha.cluster_check.table import CHECKS, named


def test_a_machine_without_npus_ends_with_a_sentence_and_nothing_is_left(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="devices 0, 1 are wanted, /dev has 0 davinci devices"):
        main(["check-cluster", "--nproc", "2", "--out", str(out)])
    assert not out.exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--nnodes", "2"], "--master-addr: needed with 2 nodes"),
        (["--nnodes", "2", "--master-addr", "10.0.0.1"], "--node-rank: needed with 2 nodes"),
        (["--master-port", "65530"], "--master-port: every measurement takes the next port"),
        (["--only", "speed,sped"], "--only: 'sped' is no check; there are environment"),
        (["--rank-table", "table.json"], "joins ranks on CPU by msrun only"),
        (["--cluster", "911b"], "911b"),
        (["--nproc", "99999"], "are too many"),
        (["--released", "."], "--text: a released network and a text are compared together"),
        (["--text", "."], "--released: a released network and a text are compared together"),
        (["--released", "no_such", "--text", "."], "--released: no_such: there is no such file or folder"),
    ],
)
def test_options_that_do_not_fit(tmp_path, words, said):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=said):
        main(["check-cluster", "--device", "CPU", "--out", str(out), *words])
    assert not out.exists()


def test_without_a_command_it_runs():
    assert parse(["--out", "x"]).command == "run" and parse(["--out", "x"]).device == "Ascend"
    assert parse(["--rank-table", "t", "--out", "x"]).start == "rank-table"
    found = parse(["compare", "a", "--share", "0.5", "b"])
    assert (found.command, found.share, [*map(str, found.folders)]) == ("compare", 0.5, ["a", "b"])


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "--out: name the folder of the results"),
        (["--out", "x", "compare", "a"], "write `compare ONE OTHER` with two folders"),
        (["report"], "or `report DIR` with one"),
        (["runs", "--out", "x"], "'runs' is no command; there are compare and report"),
    ],
)
def test_words_that_say_nothing(words, said):
    with pytest.raises(ValueError, match=said):
        parse(words)


def test_dry_lists_the_checks_and_runs_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--device", "CPU", "--out", str(out), "--dry", "--only", "links,speed"]
    assert main(["check-cluster", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["speed", "links"] and not out.exists()


def test_nodes_wait_as_long_as_the_first_one_may_measure_alone():
    alone, joined = (dataclasses.replace(CHECKS[0], measurements=(Measurement("a", ranks),) * 2)
                     for ranks in ("one", "all"))  # fmt: skip
    limit = CHECKS[0].limit("CPU")
    assert longest_silence([joined, alone, alone, joined], "CPU") == 5 * limit
    assert longest_silence([joined], "CPU") == limit


def test_the_table_is_whole():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.bounds.keys() == check.seconds.keys() == {"CPU", "Ascend"}
        assert check.measurements and check.shows
        __import__(check.judge.__module__)
    assert named(("links", "world")) == tuple(each for each in CHECKS if each.name in ("world", "links"))
