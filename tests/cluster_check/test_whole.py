"""The whole of it on CPU: every check runs and passes on 1, 2 and 4 ranks, and on two nodes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small_network import write_network

from pangu_alpha.cluster_check.table import CHECKS

ROOT = Path(__file__).resolve().parents[2]

# MindSpore 2.9's msrun starts a scheduler wherever the address of node 0 is the machine's own, which on one
# machine it is for both nodes. Python imports this module in all processes of the second one.
ANOTHER_MACHINE = """\
import sys
if "mindspore.parallel.cluster.run" in sys.orig_argv:
    from mindspore.parallel.cluster.process_entity import _api
    _api._is_local_ip = lambda address: False
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(probe.getsockname()[1], 60000)


def command(out, *words):
    program = [sys.executable, str(ROOT / "src" / "check_cluster.py"), "--device", "CPU", "--out", str(out)]
    return [*program, *words]


def verdicts(out):
    report = json.loads((out / "report.json").read_text("utf-8"))
    return {each["name"]: each["verdict"] for each in report["checks"]}


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_check_passes_on_cpu(ranks, tmp_path):
    out = tmp_path / "out"
    network, _, text = write_network(tmp_path)
    words = ("--nproc", str(ranks), "--master-port", str(free_port()), "--released", str(network), "--text",
             str(text))  # fmt: skip
    done = subprocess.run(command(out, *words), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:])
    expected = {check.name: "passed" if ranks >= check.least else "skipped" for check in CHECKS}
    assert verdicts(out) == expected
    again = subprocess.run(command(out, *words), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and again.stdout.count(": passed before") == [*expected.values()].count(
        "passed"
    )


@pytest.mark.long
def test_two_nodes_check_together(tmp_path):
    out = tmp_path / "out"
    shared = ("--nnodes", "2", "--nproc", "1", "--master-addr", "127.0.0.1", "--master-port",
              str(free_port()),
              "--only", "environment,world,speed")  # fmt: skip
    (tmp_path / "sitecustomize.py").write_text(ANOTHER_MACHINE, "utf-8")
    nodes = [
        subprocess.Popen(command(out, *shared, "--node-rank", str(node)), env=os.environ | more,
                         stdout=subprocess.PIPE, text=True)
        for node, more in ((1, {"PYTHONPATH": str(tmp_path)}), (0, {}))
    ]  # fmt: skip
    said = [node.communicate(timeout=500)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    found = verdicts(out)
    assert [found[name] for name in ("environment", "world", "speed")] == ["passed"] * 3
    assert said[0].splitlines() == [
        "environment: machine",
        "world: joined",
    ]  # speed is of the first rank alone
