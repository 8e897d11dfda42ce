"""The scripts for Spark clusters: what they refuse, and the command that they would run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "run_scripts"


def run(script, *words, **environment):
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PANGU_PYTHON": sys.executable, **environment},
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--", "--config", "c.yaml"], "--master: name the cluster"),
        (["--master", "yarn"], "give the words of corpus.py run behind --"),
        (["--master"], "--master: the value is missing"),
        (["--masters", "yarn"], "--masters: unknown option"),
        (["--master", "yarn", "--deploy-mode", "far", "--", "x"], "far is neither client nor cluster"),
        (
            ["--master", "yarn", "--archive", "none.tar.gz", "--", "x"],
            "make it with pack_corpus_environment.sh",
        ),
    ],
)
def test_what_is_wrong_is_said(words, said):
    done = run("run_corpus_spark.sh", *words, SPARK_MASTER="")
    assert done.returncode == 2 and said in done.stderr


def test_the_command_that_is_run(tmp_path):
    pytest.importorskip("pyspark", reason="pyspark, of the extra spark, is not installed")
    archive = tmp_path / "env.tar.gz"
    archive.write_bytes(b"")
    words = ["--master", "yarn", "--deploy-mode", "cluster", "--archive", str(archive), "--dry"]
    words += ["--conf", "spark.executor.instances=8", "--", "--config", "s3://b/c"]
    done = run("run_corpus_spark.sh", *words)
    assert done.returncode == 0, done.stderr
    assert "spark-submit --master yarn --deploy-mode cluster --py-files " in done.stdout
    assert f"--archives {archive}#env" in done.stdout and "pangu_alpha.zip" in done.stdout
    assert "spark.yarn.appMasterEnv.PYSPARK_PYTHON=./env/bin/python" in done.stdout
    assert done.stdout.rstrip().endswith("corpus.py run --engine spark --config s3://b/c")


def test_packing_overwrites_nothing(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"mine")
    done = run("pack_corpus_environment.sh", "--output", str(tmp_path / "a.tar.gz"))
    assert done.returncode == 2 and "is there already" in done.stderr
    assert (tmp_path / "a.tar.gz").read_bytes() == b"mine"
    assert run("pack_corpus_environment.sh", "--outputs").returncode == 2


@pytest.mark.parametrize("script", ["run_corpus_spark.sh", "pack_corpus_environment.sh"])
def test_help_comes_without_an_environment(script):
    done = run(script, "--help")
    assert done.returncode == 0 and "Options:" in done.stdout
