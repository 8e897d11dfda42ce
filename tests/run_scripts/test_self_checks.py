"""Two real CPU workers, one of them with a fault: both stop, and say what is wrong."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from pangu_alpha.training.reporting.report import read_metrics

FAULTS = '''
"""train.py, in which rank 1 has a fault."""
import os, sys

import numpy as np

FAULT = sys.argv.pop(1) if os.environ["MS_NODE_ID"] == "1" else sys.argv.pop(1) and ""

from pangu_alpha.cli import run_main
from pangu_alpha.cli.train import main

if FAULT == "weight":
    from mindspore import Tensor
    from pangu_alpha.training.engine import Engine

    step = Engine.step

    def faulty(self, number, *arguments):
        result = step(self, number, *arguments)
        if number == 2:
            gamma = next(p for p in self.optimizer.parameters if p.name == "blocks.0.attention_norm.gamma")
            values = gamma.asnumpy().copy()
            values[3] = np.nextafter(values[3], np.float32(2))
            gamma.set_data(Tensor(values))
        return result

    Engine.step = faulty
if FAULT == "rows":
    from pangu_alpha.training import tokens

    made = tokens.TrainingBatches
    tokens.TrainingBatches = lambda *arguments, **place: made(*arguments, **(place | {"rank": 0}))
if FAULT == "config":
    sys.argv.append("optim.weight_decay=0.2")

run_main(main)
'''


@pytest.fixture
def two(config, tmp_path, port):
    """Runs two workers of which rank 1 has a fault; gives exit codes and outputs by rank, and the folder."""

    def run(fault, *words):
        program = tmp_path / "faulty.py"
        program.write_text(FAULTS, "utf-8")
        cluster = {"MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": port, "MS_WORKER_NUM": "2",
                   "OMP_NUM_THREADS": "1", "GLOG_v": "3"}  # fmt: skip
        wait = [sys.executable, "-c", "from mindspore.communication import init; init()"]
        train = [sys.executable, str(program), fault, "--config", config, f"run.output={tmp_path / 'run'}",
                 "run.device=CPU", "run.steps=6", "run.checkpoint.every=2", *words]  # fmt: skip
        processes = []
        try:
            for rank in (-1, 0, 1):
                role = (
                    {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)}
                    if rank >= 0
                    else {"MS_ROLE": "MS_SCHED"}
                )
                processes.append(
                    subprocess.Popen(
                        train if rank >= 0 else wait,
                        env=os.environ | cluster | role,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                        errors="replace",
                    )
                )
            said = [process.communicate(timeout=150)[0] for process in processes[1:]]
            return [process.returncode for process in processes[1:]], said, tmp_path / "run"
        finally:
            for process in processes:
                process.kill()
                process.wait()

    return run


@pytest.mark.long  # shorter than that, other tests' workers run with these checks on
def test_workers_without_a_fault_say_where_they_are_and_compare_their_copies(two):
    codes, (first, second), run = two("none", "run.check_replicas_every=3")
    assert codes == [0, 0], first + second
    host = re.escape(socket.gethostname()[:32])
    assert re.search(rf"^dp: 1 group of 2; first: rank 0 {host}, rank 1 {host}$", first, re.M)
    assert re.findall(r"^step (\d+): copies on several ranks are equal", first, re.M) == ["1", "3", "6"]
    assert "copies on several ranks" not in second
    assert len(list(read_metrics(run / "metrics.jsonl"))) >= 6


def test_a_weight_that_differs_on_one_rank_stops_both_before_it_is_saved(two):
    codes, said, run = two("weight", "run.check_replicas_every=1", "run.checkpoint.every=3")
    assert codes == [3, 3], said
    for text in said:
        assert re.search(
            r"^error: step 3: blocks\.0\.attention_norm\.gamma: rank 1 no longer holds the same bits as rank",
            text,
            re.M,
        )
    assert not list((run / "checkpoints").glob("step_*"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("rows", r"data: rank 1 read rows that are those of another data coordinate"),
        pytest.param(
            "config",
            r"optim\.weight_decay: not the same on all ranks: rank 1 \(.*\) against rank 0",
            marks=pytest.mark.long,  # shorter than that, by threads: tests/cluster/test_world_check.py
        ),
    ],
)
def test_what_differs_before_the_first_step_is_wrong_input(two, fault, said):
    codes, texts, run = two(fault)
    assert codes == [2, 2], texts
    for text in texts:
        assert re.search(rf"^error: {said}", text, re.M)
    assert not (run / "metrics.jsonl").exists() or not list(read_metrics(run / "metrics.jsonl"))
