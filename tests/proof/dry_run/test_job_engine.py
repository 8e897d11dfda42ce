"""Training's own engine of a plan in a process that simulates Ascend: it compiles, and its slices get values.

What a rank holds is compared bit for bit with the slices of what one process holds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.parallel.layout import layouts, slices_of_rank
from pangu_alpha.proof.dry_run.cann import dry_run_environment
from pangu_alpha.proof.dry_run.job import Job

MODEL = ModelConfig(63, 32, 3, 4, seq_length=16)  # under tp 2 the table has a row of padding
SHARDED = {"optimizer_parallel": "level1", "optimizer_threshold": 0}
STAGES = ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2, **SHARDED)
GRID = ParallelPlan(dp=2, tp=2, **SHARDED)
CASES = {"first stage": (STAGES, 1), "last stage": (STAGES, 6), "one stage": (GRID, 3)}
MOMENTS = ("adam_m.", "adam_v.")

CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from mindspore.communication import init
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.config.schema import build
from pangu_alpha.parallel.context import simulate_ascend
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph import private
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.dry_run.engine import JobEngine

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
job = build(Job, json.loads((folder / "job.json").read_text("utf-8")))
simulate_ascend()
private.allow_missing_hccl()
init()
engine = JobEngine(job, rank)

def write(name):
    held = {key: each.asnumpy() for group in engine._groups().values() for key, each in group.items()}
    np.savez(folder / name, **held)

engine.compile()
engine.initialize()
write("initial.npz")
boxes = {name: engine._box(name) for name in engine._groups()["model"]}
engine.load(open_source(folder / "whole", OpenOptions(model=job.model), boxes), ["model", "optimizer"], True)
write("loaded.npz")
assert all(shape == array.shape for (_, _, shape, _), (_, _, array) in zip(
    engine.specs(), engine.tensors(), strict=True))
readers = [
    node.type
    for function in mindir.read(private.graph_of(engine.graph)).functions
    for node in function.nodes
    for name in node.inputs
    if mindir.own_name(name) == "word_embedding.table"
]
print("readers", *readers)
"""


def cut(array, shape, start, held):
    """A slice of an array that rows of zeros pad to a shape."""
    whole = np.zeros(shape, np.float32)
    whole[: len(array)] = array
    return whole[tuple(slice(begin, begin + size) for begin, size in zip(start, held, strict=True))]


@pytest.fixture(scope="module")
def one_process(cpu):
    """Initial parameters of seed 7 as one process draws them, and a random state to load."""
    from pangu_alpha.model.pangu import PanguAlpha

    initial = {name: each.asnumpy() for name, each in PanguAlpha(MODEL, 7).parameters_and_names()}
    random = np.random.default_rng(0)
    state = {
        prefix + name: random.random(each.shape, np.float32)
        for prefix in ("", *MOMENTS)
        for name, each in initial.items()
    }
    return initial, state


@pytest.fixture(scope="module")
def children(one_process, tmp_path_factory):
    """What the engine of each case held after `initialize` and after `load`, and what its child said."""
    _, state = one_process

    def run(case):
        plan, rank = CASES[case]
        folder = tmp_path_factory.mktemp(case.replace(" ", "_"))
        job = Job(MODEL, plan, batch_size=2, seed=7)
        (folder / "job.json").write_text(json.dumps(to_mapping(job)))
        groups = {
            "model": {name: each for name, each in state.items() if not name.startswith(MOMENTS)},
            "optimizer": {name: each for name, each in state.items() if name.startswith(MOMENTS)},
        }
        write_checkpoint(folder / "whole", groups, Manifest(4, 64, {"model": to_mapping(MODEL)}))
        command = [sys.executable, "-c", CHILD, str(folder), str(rank)]
        environment = dry_run_environment(rank, plan.devices)
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        initial, loaded = (dict(np.load(folder / name)) for name in ("initial.npz", "loaded.npz"))
        return initial, loaded, done.stdout.split("readers")[-1].split()

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(run, CASES), strict=True))


def expected_slices(case, arrays, prefix=""):
    """The slices of whole arrays that a rank holds, by name."""
    plan, rank = CASES[case]
    placed = layouts(MODEL, plan)
    return {
        prefix + name: cut(arrays[prefix + name], placed[name].shape, *place)
        for name, place in slices_of_rank(placed, plan, rank).items()
    }


@pytest.mark.parametrize("case", CASES)
def test_a_rank_s_initial_values_are_slices_of_one_process_s(one_process, children, case):
    held, _, _ = children[case]
    parameters = {name: each for name, each in held.items() if not name.startswith(MOMENTS)}
    expected = expected_slices(case, one_process[0])
    assert parameters.keys() == expected.keys()
    for name, array in parameters.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)
    assert not any(held[name].any() for name in held.keys() - parameters.keys())


@pytest.mark.parametrize("case", CASES)
def test_a_rank_loads_its_slices_of_a_checkpoint_of_one_process(one_process, children, case):
    _, held, _ = children[case]
    expected = {}
    for prefix in ("", *MOMENTS):
        expected |= expected_slices(case, one_process[1], prefix)
    assert held.keys() == expected.keys()
    for name, array in held.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)


def test_the_last_stage_s_copy_of_the_table_needs_no_values(children):
    assert children["last stage"][2] == ["Receive"]  # which only writes it
    assert len(children["first stage"][2]) > 1
