"""Calls of CANN's stubs are counted, and unknown ones refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.dry_run import cann
from pangu_alpha.proof.dry_run import compile as dry_run
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import DryRunError, Job, RankReport
from pangu_alpha.proof.dry_run.stub_calls import KNOWN, counted, refuse_unknown

COUNT = """
import ctypes, json
from pangu_alpha.proof.dry_run.cann import stubs_in_use
from pangu_alpha.proof.dry_run.stub_calls import counted
assert counted() == {}, "nothing is loaded yet"
path, names = stubs_in_use()
library = ctypes.CDLL(str(path))
assert counted() == {}
assert [library.aclrtMalloc(), library.aclrtMalloc(), library[names[-1]]()] == [0, 0, 0]
print(json.dumps([counted(), names[-1]]))
"""


@pytest.fixture
def no_cann(monkeypatch):
    """As on a machine without CANN."""
    for name in ("LD_LIBRARY_PATH", "ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_every_call_of_a_stub_is_counted_by_name(no_cann):
    environment = cann.dry_run_environment(0, 1)
    done = subprocess.run([sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls, last = json.loads(done.stdout)
    assert calls == {"aclrtMalloc": 2, last: 1}


def test_a_process_without_stubs_has_called_none(no_cann):
    assert counted() == {}


def test_unknown_calls_are_refused_by_name():
    refuse_unknown({})
    refuse_unknown(dict.fromkeys(KNOWN, 3))
    with pytest.raises(ValueError, match="MindSpore called aclrtGetSocName, aclrtMalloc of CANN; the stub"):
        refuse_unknown(dict.fromkeys(KNOWN, 3) | {"aclrtMalloc": 1, "aclrtGetSocName": 2})


def test_a_dry_run_that_called_an_unknown_stub_is_refused(tmp_path, monkeypatch):
    report = asdict(RankReport(1, tmp_path, 1.0, None, 1, {}, {}, {"aclrtMalloc": 1}))

    def child(command, **_):
        target = tmp_path / "rank_00001" / dry_run.REPORT
        target.write_text(json.dumps({name: value for name, value in report.items() if name != "folder"}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(dry_run.subprocess, "run", child)
    monkeypatch.setattr(dry_run, "dry_run_environment", lambda *_: {})
    with pytest.raises(DryRunError, match="rank 1: MindSpore called aclrtMalloc of CANN"):
        compile_rank(Job(ModelConfig(192, 32, 2, 4, dropout=0.0), ParallelPlan(dp=2)), 1, tmp_path)
