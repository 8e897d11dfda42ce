"""merge_checkpoint.py: what it opens, what it makes, what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.checkpoint.native.format import Manifest, read_checkpoint, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.cli.merge_checkpoint import main
from pangu_alpha.cli.options import byte_size
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.network.parameters import parameter_shapes

MODEL = ModelConfig(vocab_size=61, hidden_size=24, num_layers=3, num_heads=12, seq_length=8)
MERGE = Path(__file__).parents[2] / "src" / "merge_checkpoint.py"


@pytest.fixture(scope="module")
def arrays():
    """A training state by stem and name."""
    rng, shapes = np.random.default_rng(5), parameter_shapes(MODEL)
    prefixes = {"model": [""], "optimizer": MOMENTS}
    return {
        stem: {
            each + name: rng.standard_normal(s, np.float32) for each in group for name, s in shapes.items()
        }
        for stem, group in prefixes.items()
    }


@pytest.fixture
def single(arrays, tmp_path):
    """A run's output folder with one process's checkpoint of step 7."""
    manifest = Manifest(7, 70, {"model": to_mapping(MODEL), "run": {"seed": 1}}, "digest", {"scale": 0.5})
    write_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000007", arrays, manifest)
    return tmp_path / "run"


@pytest.fixture
def slices(single, tmp_path):
    """The same, cut for dp 2, tp 2."""
    merge(single, tmp_path / "slices", "--dp", "2", "--tp", "2", "--optimizer-parallel", "level1")
    return tmp_path / "slices"


def merge(*words):
    return main([*map(str, words), "--quiet", "--workers", "1"])


def assert_equal(path, arrays):
    source = open_source(path)
    assert source.tensors.keys() == arrays.keys()
    for stem, group in arrays.items():
        for name, array in group.items():
            found = source.tensors[stem][name]
            assert (read_box(found, whole(found.shape)) == array).all()


def test_a_run_is_cut_and_merged_again(single, slices, arrays, tmp_path, capsys):
    assert_equal(slices, arrays)
    capsys.readouterr()
    assert merge(slices, tmp_path / "merged", "--full") == 0
    said = capsys.readouterr().out
    assert "slices: slices of 4 ranks; model and optimizer" in said and "step 7, 70 samples" in said
    assert "merged: written for one process" in said and "peak memory" in said
    assert_equal(tmp_path / "merged", arrays)
    manifest = read_checkpoint(tmp_path / "merged").manifest
    assert (manifest.kind, manifest.tokenizer, manifest.state) == ("training", "digest", {"scale": 0.5})
    assert manifest.config["run"] == {"seed": 1}
    assert manifest.config["parallel"] == to_mapping(ParallelPlan())


def test_a_plan_from_a_file_and_weights_alone(slices, arrays, tmp_path):
    plan = tmp_path / "run.yaml"
    plan.write_text(yaml.safe_dump({"parallel": {"tp": 3, "pp": 2, "micro_batches": 4}, "model": "tiny"}))
    merge(slices, tmp_path / "made", "--plan", plan, "--pp", "3", "--weights-only")
    manifest = read_checkpoint(tmp_path / "made").manifest
    assert manifest.config["parallel"] == to_mapping(ParallelPlan(tp=3, pp=3, micro_batches=4))
    assert manifest.kind == "slices" and len(manifest.parts) == 9
    assert_equal(tmp_path / "made", {"model": arrays["model"]})


def test_the_newest_whole_one_of_a_run(single, arrays, tmp_path, capsys):
    checkpoints = single / "checkpoints"
    shutil.copytree(checkpoints / "step_00000007", checkpoints / "step_00000009")
    (checkpoints / "step_00000009" / "COMPLETE").unlink()
    merge(single, tmp_path / "made")
    assert "note: passed over: " in capsys.readouterr().out
    assert_equal(tmp_path / "made", arrays)


def test_nodes_that_share_no_storage(slices, arrays, tmp_path, capsys):
    """Each node has the parts of its own ranks and no marker of the whole."""
    nodes = [tmp_path / f"node{number}" / "checkpoints" / "step_00000007" for number in (0, 1)]
    for number, node in enumerate(nodes):
        node.mkdir(parents=True)
        for rank in (2 * number, 2 * number + 1):
            shutil.copytree(slices / f"rank_{rank:05d}", node / f"rank_{rank:05d}")
    merge(nodes[0].parents[1], nodes[1].parents[1], tmp_path / "made")
    assert "slices of 4 ranks, of nodes" in capsys.readouterr().out
    assert_equal(tmp_path / "made", arrays)
    with pytest.raises(
        CheckpointError, match="2 of the plan's 4 parts are missing: rank_00002, rank_00003; give"
    ):
        merge(nodes[0], tmp_path / "less")
    shutil.copytree(slices / "rank_00001", nodes[1] / "rank_00001")
    with pytest.raises(CheckpointError, match=r"rank_00001: is in .*node0.*, too"):
        merge(*nodes, tmp_path / "less")


def test_parts_are_those_the_whole_names(slices, tmp_path):
    kept = slices / "rank_00003" / "manifest.json"
    kept.write_bytes(kept.read_bytes().replace(b'"step": 7', b'"step": 8'))
    with pytest.raises(CheckpointError, match=r"rank_00003/manifest.json: damaged, or of another save"):
        merge(slices, tmp_path / "made")
    shutil.rmtree(slices / "rank_00003")
    with pytest.raises(CheckpointError, match="rank_00003: missing"):
        merge(slices, tmp_path / "made")
    with pytest.raises(CheckpointError, match="rank_00001: one rank's part of a checkpoint"):
        merge(slices / "rank_00001", tmp_path / "made")


@pytest.mark.parametrize("rank", range(4))
@pytest.mark.parametrize("stem", ["model", "optimizer"])
def test_a_flipped_bit_is_named(slices, tmp_path, rank, stem):
    path = slices / f"rank_{rank:05d}" / f"{stem}.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=rf"rank_{rank:05d}/{stem}.safetensors: damaged: .*: expected xxh3"
    ):
        merge(slices, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_refusals(single, slices, tmp_path):
    with pytest.raises(ConfigError, match="tp: 5 does not divide the model's 12 heads"):
        merge(single, tmp_path / "made", "--tp", "5")
    with pytest.raises(ConfigError, match=r"pp: 4 stages for 3 layers"):
        merge(single, tmp_path / "made", "--pp", "4")
    with pytest.raises(ValueError, match="--full: makes a checkpoint of no plan"):
        merge(single, tmp_path / "made", "--tp", "2", "--full")
    with pytest.raises(CheckpointError, match="slices: exists already"):
        merge(single, slices)
    with pytest.raises(CheckpointError, match="nowhere: there is no such file or folder"):
        merge(tmp_path / "nowhere", tmp_path / "made")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        CheckpointError, match="empty: no checkpoint of a known form; looked for a checkpoint"
    ):
        merge(tmp_path / "empty", tmp_path / "made")
    with pytest.raises(CheckpointError, match="bytes are too few for 1 workers"):
        merge(single, tmp_path / "made", "--budget", "10MB")
    with pytest.raises(SystemExit):
        merge(single, tmp_path / "made", "--budget", "much")
    for number, text in enumerate(("parallel:\n", "parallel: 3\n", "{}\n")):
        (tmp_path / f"{number}.yaml").write_text(text)
        for more in ((), ("--tp", "2")):
            with pytest.raises(ValueError, match=f"{number}.yaml: no fields of a plan"):
                merge(single, tmp_path / "made", "--plan", str(tmp_path / f"{number}.yaml"), *more)
    assert not (tmp_path / "made").exists()
    assert [byte_size(text) for text in ("2GB", "1.5 mb", "7", "3k")] == [2 * 10**9, 1500000, 7, 3000]


def test_tensors_that_are_not_the_models(arrays, tmp_path):
    model = {name: array for name, array in arrays["model"].items() if name != "final_norm.beta"}
    model["final_norm.gamma"] = np.ones(5, np.float32)
    write_checkpoint(tmp_path / "a", {"model": model}, Manifest(1, 1, {"model": to_mapping(MODEL)}))
    with pytest.raises(
        CheckpointError, match=r"missing: final_norm.beta \[24\](.|\n)*final_norm.gamma \[24\], found"
    ):
        merge(tmp_path / "a", tmp_path / "made")


def test_killed_and_run_again(single, arrays, tmp_path):
    """The process is killed when it has recorded some tensors; what it recorded is not read again."""
    code = f"""
import os, signal, sys
from pangu_alpha.checkpoint.moving import copying
from pangu_alpha.checkpoint.moving import resumable
copying._FLUSH = 20000
record, batches = resumable.ResumableFolder.record, []
def then_die(self, steps):
    record(self, steps)
    batches.append(steps)
    if len(batches) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
resumable.ResumableFolder.record = then_die
from pangu_alpha.cli.merge_checkpoint import main
main({[str(single), str(tmp_path / "made"), "--tp", "2", "--quiet", "--workers", "1"]!r})
"""
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == -9
    journal = (tmp_path / ".merging-made" / "journal.jsonl").read_text().splitlines()
    assert 3 < len(journal) < 3 * len(arrays["model"]) and not (tmp_path / "made").exists()
    merge(single, tmp_path / "made", "--tp", "2")
    assert_equal(tmp_path / "made", arrays)
    assert read_checkpoint(tmp_path / "made").manifest.kind == "slices"
    assert not (tmp_path / ".merging-made").exists()


SLOWLY = """
import time
from pangu_alpha.checkpoint.moving import copying
from pangu_alpha.checkpoint.moving import streaming
from pangu_alpha.cli import run_main
from pangu_alpha.cli.merge_checkpoint import main

copying._FLUSH = 1
rows = streaming.PieceReader.rows

def slow(self, box, into=None):
    time.sleep(0.05)
    return rows(self, box, into)

streaming.PieceReader.rows = slow
run_main(main)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_control_c_says_how_to_go_on(single, arrays, tmp_path, workers):
    words = [str(single), str(tmp_path / "made"), "--quiet", "--workers", str(workers)]
    journal = tmp_path / ".merging-made" / "journal.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        while not journal.exists() or journal.read_text().count("\n") < 5:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert (process.returncode, said) == (
        130,
        f"{tmp_path}/made: interrupted; what was done is kept: the same command goes on from there\n",
    )
    assert journal.read_text().count("\n") >= 5
    merge(single, tmp_path / "made")
    assert_equal(tmp_path / "made", arrays)


def test_the_command_needs_no_mindspore(single, tmp_path):
    """Exit codes of the script itself, and what it imports; a second run refuses."""
    command = [
        sys.executable,
        "-X",
        "importtime",
        str(MERGE),
        str(single),
        str(tmp_path / "made"),
        "--tp",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in imported and "mindspore" not in imported
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "error: " in done.stderr and "exists already" in done.stderr
