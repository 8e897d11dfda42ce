"""kill -9 of the driver, a worker process, an executor or a Spark worker at random moments; a full disk.

The same command goes on each time, and the final files have the bytes of a run that nothing has disturbed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import small_corpus
import spark_cluster
import yaml

pytestmark = pytest.mark.long
LOCAL_KILLS = 15  # of each kind
SPARK_KILLS = 10  # of each kind
LONGEST = 1500  # seconds of one run; Spark waits long for executors that do not answer


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    small_corpus.write_inputs(folder, count=200)
    return folder


@pytest.fixture(scope="module")
def reference(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("reference")
    small_corpus.run(small_corpus.config(inputs, output))
    return small_corpus.digests(output)


def start(folder, inputs, output, *words):
    """Starts `corpus.py run` as a process group of its own."""
    (folder / "c.yaml").write_text(yaml.safe_dump(small_corpus.settings(inputs, output)))
    command = [
        sys.executable,
        "-m",
        "pangu_alpha.cli.corpus",
        "run",
        "--config",
        str(folder / "c.yaml"),
        *words,
    ]
    log = (folder / "log").open("a")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def children(pid):
    """The processes below a process which run our work."""
    found = [each for each, parent, line in spark_cluster.running() if parent == pid and "spawn_main" in line]
    return found


def killed(victim):
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
        return True
    return False


@pytest.mark.parametrize("kind", ["driver", "worker"])
def test_kills_on_this_machine(inputs, reference, tmp_path, kind):
    """Moments are drawn anew until there were enough of them; a finished run begins again in a new folder."""
    draw, kills, runs = random.Random(kind), 0, 0
    output = tmp_path / "0"
    while kills < LOCAL_KILLS:
        process = start(tmp_path, inputs, output, "--workers", "2")
        time.sleep(draw.uniform(0.8, 6.0))
        victims = [process.pid] if kind == "driver" else children(process.pid)
        if process.poll() is None and victims and killed(draw.choice(sorted(victims))):
            kills += 1
        code = process.wait(LONGEST)
        assert code in ((0, -signal.SIGKILL) if kind == "driver" else (0, 2)), (tmp_path / "log").read_text()
        if code == 0:
            assert small_corpus.digests(output) == reference
            runs += 1
            output = tmp_path / str(runs)
    assert start(tmp_path, inputs, output, "--workers", "2").wait(LONGEST) == 0
    assert small_corpus.digests(output) == reference
    if kind == "worker":
        assert "a worker process was killed" in (tmp_path / "log").read_text()


@pytest.mark.skipif(bool(spark_cluster.missing()), reason=spark_cluster.missing() or "-")
@pytest.mark.parametrize("kind", ["executor", "Spark worker"])
def test_kills_on_a_cluster(inputs, reference, tmp_path, monkeypatch, kind):
    """Spark gives the lost tasks to others; where it gives up, the same command goes on."""
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    draw, kills, runs = random.Random(kind), 0, 0
    cluster = spark_cluster.Cluster(tmp_path / "cluster")
    output = tmp_path / "0"
    try:
        while kills < SPARK_KILLS:
            words = ["--engine", "spark", "--master", cluster.address]
            process = start(tmp_path, inputs, output, *words)
            end = time.monotonic() + LONGEST
            while process.poll() is None and kills < SPARK_KILLS and time.monotonic() < end:
                time.sleep(draw.uniform(2.0, 12.0))
                if process.poll() is None and cluster.executors():
                    kills += kill_one(cluster, kind, draw)
            code = process.wait(LONGEST)
            assert code in (0, 2), (tmp_path / "log").read_text()
            if code == 0:
                assert small_corpus.digests(output) == reference
                runs += 1
                output = tmp_path / str(runs)
        assert start(tmp_path, inputs, output, *words).wait(LONGEST) == 0
        assert small_corpus.digests(output) == reference
    finally:
        cluster.stop()


def kill_one(cluster, kind, draw):
    """Kills an executor, or a worker with its executors, for which another one starts; returns whether."""
    if kind == "executor":
        return killed(draw.choice(sorted(cluster.executors())))
    number = draw.choice([1, 2])
    cluster.kill(f"worker{number}")
    cluster.start_worker(number)
    return True


def test_a_disk_that_is_full(inputs, reference, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        output = disk / "out"
        assert start(tmp_path, inputs, output, "--workers", "2").wait(LONGEST) == 2
        log = (tmp_path / "log").read_text()
        assert "No space left on device" in log and "Traceback" not in log
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert start(tmp_path, inputs, output, "--workers", "2").wait(LONGEST) == 0
        assert small_corpus.digests(output) == reference
    finally:
        subprocess.run(["umount", str(disk)], check=True)
