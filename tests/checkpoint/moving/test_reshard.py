"""Any plan to any plan: 60 random pairs, bit for bit."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.moving.reshard import reshard
from pangu_alpha.checkpoint.naming import MOMENTS, parameter_of
from pangu_alpha.checkpoint.native.folders import part_name
from pangu_alpha.checkpoint.native.format import (
    MARKER,
    Manifest,
    read_checkpoint,
    seal_folder,
    write_checkpoint,
)
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, checksum
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.tensors import Box, whole
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.operator_table import table_text
from pangu_alpha.config.parallel import ParallelPlan, misfits
from pangu_alpha.config.schema import build, to_mapping
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts, slices_of_rank, written_slices
from pangu_alpha.planner.operators.found_table import found_table
from pangu_alpha.planner.operators.strategies import best_block

MODEL = ModelConfig(vocab_size=61, hidden_size=24, num_layers=3, num_heads=12, seq_length=8)
STATE = {"loss_scale": 1024.0, "skipped": 3, "running": [0.1, -0.0]}
QUIET = Limits(workers=2, progress=False)


@pytest.fixture(autouse=True)
def no_flushes(monkeypatch):
    """These tests are about numbers; flushing thousands of tiny files would take most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def arrays():
    """A training state by stem and name."""
    rng = np.random.default_rng(5)
    shapes = parameter_shapes(MODEL)
    made = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    moments = {
        prefix + name: rng.standard_normal(shape, np.float32)
        for prefix in MOMENTS
        for name, shape in shapes.items()
    }
    return {"model": made, "optimizer": moments}


def manifest_of(plan, kind="slices"):
    config = {"model": to_mapping(MODEL), "parallel": to_mapping(plan), "run": {"seed": 3}}
    return Manifest(7, 123456789012, config, "digest", STATE, kind)


def slices_of(arrays, plan, rank):
    """What a rank writes: its slices by stem and name, and where they begin."""
    placed = layouts(MODEL, plan)
    own, found, begins = written_slices(placed, plan, rank), {}, {}
    for stem, group in arrays.items():
        for name, array in group.items():
            parameter = name.removeprefix("adam_m.").removeprefix("adam_v.")
            begin = own.get(parameter)
            if begin is not None:
                layout = placed[parameter]
                padded = np.zeros(layout.shape, np.float32)
                padded[tuple(slice(size) for size in array.shape)] = array
                cut = tuple(slice(a, a + n) for a, n in zip(begin, layout.slice_shape, strict=True))
                found.setdefault(stem, {})[name] = padded[cut]
                begins.setdefault(stem, {})[name] = {"start": [*begin], "shape": [*array.shape]}
    return found, begins


def write_slices(path, arrays, plan, split=None):
    """A distributed checkpoint as the ranks of a plan write it; `split` gives the folder of each rank."""
    parts = {}
    for rank in range(plan.devices):
        found, begins = slices_of(arrays, plan, rank)
        folder = (split(rank) if split else path) / part_name(rank)
        said = Manifest(**{**vars(manifest_of(plan, "part")), "slices": begins})
        write_checkpoint(folder, found, said)
        parts[folder.name] = checksum((folder / "manifest.json").read_bytes())
    if split is None:
        seal_folder(path, Manifest(**{**vars(manifest_of(plan)), "parts": parts}))
    return path


def draw_plan(rng):
    """A plan that fits the model, of at most 12 devices."""
    while True:
        dp, tp, pp = rng.choice([1, 2, 3, 4]), rng.choice([1, 2, 3, 4, 6]), rng.choice([1, 2, 3])
        if dp * tp * pp > 12:
            continue
        stages = ()
        if pp > 1 and rng.random() < 0.5:
            cuts = sorted(rng.sample(range(1, MODEL.num_layers), pp - 1))
            stages = tuple(b - a for a, b in zip([0, *cuts], [*cuts, MODEL.num_layers], strict=True))
        plan = ParallelPlan(
            dp=dp, tp=tp, pp=pp, micro_batches=pp, layers_per_stage=stages,
            optimizer_parallel=rng.choice(["none", "level1", "level2", "level3"]) if dp > 1 else "none",
            optimizer_threshold=rng.choice([0, 1, 3]), vocab_parallel=rng.random() < 0.7,
        )  # fmt: skip
        assert not [*misfits(plan, MODEL)]
        return plan


def assert_whole(path, arrays):
    """A checkpoint of one process holds exactly these numbers and everything that travels."""
    found = read_checkpoint(path)
    assert (found.manifest.step, found.manifest.samples, found.manifest.tokenizer) == (
        7,
        123456789012,
        "digest",
    )
    assert found.manifest.kind == "training" and json.dumps(found.manifest.state) == json.dumps(STATE)
    assert found.manifest.config["run"] == {"seed": 3}
    for stem, group in arrays.items():
        loaded = found.load(stem)
        assert loaded.keys() == group.keys()
        assert all(loaded[name].tobytes() == array.tobytes() for name, array in group.items())


def assert_slices(path, arrays, plan):
    """A checkpoint of a plan holds what its ranks would have written themselves."""
    assert read_checkpoint(path).manifest.config["parallel"] == to_mapping(plan)
    for rank in range(plan.devices):
        expected, begins = slices_of(arrays, plan, rank)
        part = read_checkpoint(path / part_name(rank))
        assert part.manifest.slices == begins and part.manifest.files.keys() == expected.keys()
        for stem, group in expected.items():
            loaded = part.load(stem)
            assert loaded.keys() == group.keys()
            assert all(loaded[name].tobytes() == array.tobytes() for name, array in group.items())


@pytest.mark.parametrize("seed", range(60))
def test_a_pair_of_plans(seed, arrays, tmp_path):
    rng = random.Random(seed)
    first, second = draw_plan(rng), draw_plan(rng)
    source = open_source(write_slices(tmp_path / "a", arrays, first))
    assert source.form == f"slices of {first.devices} ranks"
    reshard(source, tmp_path / "b", second, limits=QUIET)
    assert_slices(tmp_path / "b", arrays, second)
    reshard(source, tmp_path / "a_full", limits=QUIET)
    reshard(open_source(tmp_path / "b"), tmp_path / "b_full", limits=QUIET)
    assert_whole(tmp_path / "a_full", arrays)
    assert_whole(tmp_path / "b_full", arrays)


SHARDED = {"dp": 2, "optimizer_parallel": "level2", "optimizer_threshold": 0}


@pytest.mark.parametrize(
    ("devices", "batch", "more"),
    [(4, 2, {}), (4, 8, SHARDED), (2, 2, {"pp": 3, "micro_batches": 3}),
     (4, 2, {"pp": 2, "micro_batches": 2, **SHARDED})],
)  # fmt: skip
def test_to_and_from_a_found_table_whose_file_is_gone(devices, batch, more, arrays, tmp_path):
    found = found_table(best_block(MODEL, devices, batch), MODEL, "small")
    (tmp_path / "table.yaml").write_text(table_text(found), "utf-8")
    plan = build(ParallelPlan, {"tp": devices, "table": str(tmp_path / "table.yaml"), **more})
    (tmp_path / "table.yaml").unlink()
    usual = ParallelPlan(dp=2, tp=3)
    for name, before, after in (("to", usual, plan), ("from", plan, usual)):
        source = open_source(write_slices(tmp_path / name, arrays, before))
        reshard(source, tmp_path / f"{name}_other", after, limits=QUIET)
        assert_slices(tmp_path / f"{name}_other", arrays, after)
        reshard(open_source(tmp_path / f"{name}_other"), tmp_path / f"{name}_full", limits=QUIET)
        assert_whole(tmp_path / f"{name}_full", arrays)
    for rank in range(plan.devices):  # opens the parts that the kept table names, and no others
        boxes = boxes_of(plan, rank)
        source = open_source(tmp_path / "from", boxes=boxes)
        assert_holds(source, boxes, arrays)
        needed = {
            piece.file.parent
            for name, piece in all_pieces(open_source(tmp_path / "from"))
            if name in boxes and piece.box.intersect(boxes[name])
        }
        assert {piece.file.parent for _, piece in all_pieces(source)} == needed


def test_a_checkpoint_that_names_a_tables_file_is_refused(arrays, tmp_path):
    plan = ParallelPlan(dp=2, tp=2)
    path = write_slices(tmp_path / "slices", arrays, plan)
    told = json.loads((path / "manifest.json").read_text("utf-8"))["config"]
    told["parallel"]["table"] = "/etc/passwd"
    parts = read_checkpoint(path).manifest.parts
    for name in ("manifest.json", MARKER):
        (path / name).unlink()
    seal_folder(path, Manifest(**{**vars(manifest_of(plan)), "config": told, "parts": parts}))
    with pytest.raises(CheckpointError, match="parallel.table: names a file; a checkpoint holds the table"):
        open_source(path)


def test_the_pairs_cover_what_plans_differ_in():
    pairs = []
    for seed in range(60):
        rng = random.Random(seed)
        pairs.append((draw_plan(rng), draw_plan(rng)))
    plans = [plan for pair in pairs for plan in pair]
    for name in ("dp", "tp", "pp", "optimizer_parallel", "layers_per_stage", "vocab_parallel"):
        assert sum(getattr(a, name) != getattr(b, name) for a, b in pairs) >= 15, name
    assert {plan.optimizer_parallel for plan in plans} == {"none", "level1", "level2", "level3"}
    assert sum(bool(plan.layers_per_stage) for plan in plans) >= 15
    padded = [plan for plan in plans if layouts(MODEL, plan)["word_embedding.table"].shape[0] > 61]
    assert len(padded) >= 30


def boxes_of(plan, rank):
    placed = layouts(MODEL, plan)
    return {name: Box(*held) for name, held in slices_of_rank(placed, plan, rank).items()}


def all_pieces(source):
    """Every piece with its parameter."""
    for group in source.tensors.values():
        for name, stored in group.items():
            yield from ((parameter_of(name), piece) for piece in stored.pieces)


def assert_holds(source, boxes, arrays):
    """All names are there, and the boxes can be read of weights and moments."""
    for stem, group in arrays.items():
        assert {name: each.shape for name, each in source.tensors[stem].items()} == {
            name: array.shape for name, array in group.items()
        }
        for name, array in group.items():
            box = boxes.get(parameter_of(name))
            if box is not None:
                padded = np.zeros(box.stop, np.float32)
                inside = tuple(map(slice, np.minimum(array.shape, box.stop)))
                padded[inside] = array[inside]
                found = read_box(source.tensors[stem][name], box, name=name)
                np.testing.assert_array_equal(found, padded[box.within(whole(box.stop))], err_msg=name)


@pytest.mark.parametrize("seed", range(20))
def test_a_rank_opens_the_parts_that_hold_its_slices(arrays, tmp_path, seed):
    rng = random.Random(f"narrow {seed}")
    before, after = draw_plan(rng), draw_plan(rng)
    path = write_slices(tmp_path / "slices", arrays, before)
    for plan in (before, after):
        boxes = boxes_of(plan, rng.randrange(plan.devices))
        source = open_source(path, boxes=boxes)
        assert_holds(source, boxes, arrays)
        opened = {piece.file.parent for _, piece in all_pieces(source)}
        needed = {
            piece.file.parent
            for name, piece in all_pieces(open_source(path))
            if name in boxes and piece.box.intersect(boxes[name])
        }
        assert opened == needed


def test_parts_by_another_rule_are_all_opened(arrays, tmp_path):
    """Each rank's slices lie in the next one's folder: the plan does not tell where; all are looked at."""
    plan = ParallelPlan(dp=2, tp=2, optimizer_parallel="level1", optimizer_threshold=0)
    path, parts = tmp_path / "slices", {}
    for rank in range(plan.devices):
        found, begins = slices_of(arrays, plan, rank)
        folder = path / part_name((rank + 1) % plan.devices)
        write_checkpoint(folder, found, Manifest(**{**vars(manifest_of(plan, "part")), "slices": begins}))
        parts[folder.name] = checksum((folder / "manifest.json").read_bytes())
    seal_folder(path, Manifest(**{**vars(manifest_of(plan)), "parts": parts}))
    boxes = boxes_of(plan, 0)
    assert_holds(open_source(path, boxes=boxes), boxes, arrays)


def test_what_no_opened_part_holds_is_not_read_as_zeros(arrays, tmp_path):
    plan = ParallelPlan(dp=2, tp=2, optimizer_parallel="level1", optimizer_threshold=0)
    path, table = write_slices(tmp_path / "slices", arrays, plan), "word_embedding.table"
    stored = open_source(path, boxes=boxes_of(plan, 0)).tensors["model"][table]
    with pytest.raises(CheckpointError, match=r"table: 7\d\d elements of Box.* in none of the opened files"):
        read_box(stored, whole(stored.shape), name=table)
