"""The runner stops at nothing, names the rank that died, keeps results, and leaves no process behind."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from pangu_alpha.cli.check_cluster import running
from pangu_alpha.cli.check_cluster.orders import Leader
from pangu_alpha.cli.check_cluster.running import Machines, Runner
from pangu_alpha.cluster_check.check import Check, Finding, Measurement
from pangu_alpha.cluster_check.records import read_result
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.launcher.commands import COMMANDS, Job, plain_nodes
from pangu_alpha.processes.belonging import MARK, Launcher, marked
from pangu_alpha.processes.signals import Signals

FAKE = Path(__file__).with_name("fake_rank.py")


def check(name, ranks="each", **more):
    def judge(evidence):
        found = sorted(each["rank"] for each in evidence.records["here"])
        yield Finding("ranks", str(found), "all", found == ([0, 1] if ranks == "each" else [0]))

    bounds = {"CPU": {}, "Ascend": {}}
    return Check(name, "Part", "what it shows", (Measurement("here", ranks),), judge, bounds,
                 {"CPU": 0, "Ascend": 0}, **more)  # fmt: skip


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Runs checks on two ranks of this machine that compute nothing; `said` are its lines."""
    monkeypatch.setattr(Check, "limit", lambda self, device: 4.0)
    monkeypatch.setattr(running, "_LEAVING", 0.5)
    mark = f"{Launcher.this(5).mark}"
    path = os.pathsep.join([str(COMMANDS), os.environ["PATH"]])
    environment = {MARK: mark, "PANGU_PYTHON": sys.executable, "PATH": path}
    nodes = plain_nodes(1, 2)
    job = Job((str(FAKE),), nodes, "alone", environment)
    setup = Setup("CPU", ((0, 1),), ((0, 1),))
    machines = Machines(job, nodes[0], setup, tmp_path, 1)
    said = []

    def run(*checks):
        with Signals() as signals:
            Runner(machines, Leader(tmp_path, 1, 21000), signals, said.append).run(checks)
        assert not marked(mark)  # whatever happened, nothing runs any longer
        return [read_result(tmp_path, each.name) for each in checks]

    run.said = said
    return run


def test_a_rank_that_dies_is_named_and_the_next_check_runs(runner):
    dead, good, one = runner(check("dies"), check("good"), check("first", "one"))
    assert dead.verdict == "died" and "rank 1 on node 0 failed first, ended by SIGKILL (9)" in dead.why
    assert dead.log == "checks/dies/001/here/node_0/worker_1.log" and "MemoryError: planted" in dead.tail
    assert good.verdict == one.verdict == "passed" and not good.why
    assert good.findings == (Finding("ranks", "[0, 1]", "all", True),)
    assert runner.said[-1] == "first: PASSED in 0 s" or runner.said[-1].startswith("first: PASSED")


def test_an_independent_measurement_that_dies_is_a_finding_and_the_next_one_runs(runner):
    each = {"ranks": "each", "independent": True}
    measurements = (
        Measurement("here", title="both", **each),
        Measurement("other", multiple=3, title="three", **each),
        Measurement("third", kinds=("Ascend",), **each),
    )
    (dead,) = runner(dataclasses.replace(check("dies"), measurements=measurements))
    assert dead.verdict == "died" and dead.log.endswith("worker_1.log") and "both" in dead.why
    unjudged, stopped, left, other = dead.findings
    assert unjudged.what == "records" and not unjudged.passed  # the judge had none
    assert stopped.what == "both" and "ended by SIGKILL" in stopped.value and not stopped.passed
    assert left == Finding("not measured, a multiple of 3 ranks is needed, 2 here", "three")
    assert other == Finding("not measured, on Ascend alone", "third")


def test_a_rank_that_hangs_is_ended_and_named(runner):
    (late,) = runner(check("hangs"))
    assert late.verdict == "late"
    assert late.why == "here: ended after 4 s; without a record: rank 1 on node 0"
    assert 4.0 <= late.seconds < 30.0


def test_a_rank_without_a_record(runner):
    (late,) = runner(check("silent"))
    assert late.verdict == "late" and "rank 1 on node 0 left no record that this node can see" in late.why


def test_a_rank_that_dies_as_it_leaves_has_measured(runner):
    """MindSpore 2.9 sometimes crashes on CPU when a worker ends; what was measured counts, and is told."""
    (left,) = runner(check("leaves"))
    assert left.verdict == "passed"
    found, note = left.findings
    assert found.passed and note.what == "here: a process died as it left, after all had measured"
    assert "rank 1 on node 0 failed first, ended by SIGSEGV (11)" in note.value
    assert left.parts.keys() == {"here"} and 0.0 < left.parts["here"] <= left.seconds


def test_a_judge_that_fails_is_a_failed_check(runner):
    def judge(evidence):
        yield Finding("speed", evidence.one("here")["no such"])

    (broken,) = runner(dataclasses.replace(check("good"), judge=judge))
    assert broken.verdict == "failed" and "KeyError" in broken.findings[0].value


def test_what_cannot_be_measured_is_skipped(runner):
    few, bare = runner(check("good", least=3), check("other", needs=("oracle",)))
    assert few.verdict == bare.verdict == "skipped"
    assert few.why == "needs at least 3 ranks, 2 here" and "tests/fixtures" in bare.why


def test_a_check_runs_in_a_new_folder_each_time(runner, tmp_path):
    runner(check("good"))
    runner(check("good"))
    assert sorted(path.name for path in (tmp_path / "checks" / "good").iterdir()) == ["001", "002"]
    assert read_result(tmp_path, "good").records == {"here": "checks/good/002/here"}
