"""The slices of all ranks make up the tensors, in pipelines of many stages, too."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import read_ckpt
from pangu_alpha.checkpoint.foreign.mindspore.export import STRATEGY_FILE, export_slices
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes

QUIET = Limits(workers=1, progress=False)

# The official 200B: class PANGUALPHAPipeline, 16 stages, a folder a training rank, weights and moments.
DEEP = ModelConfig(96, 16, num_layers=16, num_heads=2, seq_length=8, norm_order="query_then_norm")
SIXTEEN = ParallelPlan(dp=2, tp=2, pp=16, micro_batches=16, optimizer_parallel="level1", vocab_parallel=False)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    rng, shapes = np.random.default_rng(1), parameter_shapes(DEEP)
    weights = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    moments = {f"adam_{kind}.{name}": array * 2 for kind in "mv" for name, array in weights.items()}
    return {"model": weights, "optimizer": moments}


def save_official(folder, arrays, plan):
    """Every rank's file by the official names, the tied table on the last stage, too; strategies by rank."""
    import mindspore as ms

    from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import Cut, strategy_bytes

    axes = {"dense": (0,), "attention.projection.weight": (0,), "mapping.weight": (1,), "mapping.bias": (0,)}
    axes["output.projection.weight"] = (0,)
    (folder / "strategy").mkdir(parents=True)
    for stage in range(plan.pp):
        named = {name: array for name, array in arrays.items() if stage in stages_of(name, plan.pp)}
        cuts = {}
        for name, array in named.items():
            axis = next((one[0] for part, one in axes.items() if part in name), None)
            over = tuple((0,) if one == axis else () for one in range(array.ndim))
            cuts[name] = Cut((plan.dp, plan.tp), over, plan.dp if axis is not None else 1)
        for place in range(plan.dp * plan.tp):
            rank = stage * plan.dp * plan.tp + place
            (folder / "strategy" / f"strategy_rank_{rank}.ckpt").write_bytes(strategy_bytes({stage: cuts}))
            own = []
            for name, array in named.items():
                axis = next((one[0] for part, one in axes.items() if part in name), None)
                if axis is not None:
                    array = np.split(np.split(array, plan.tp, axis)[place % plan.tp], plan.dp)[
                        place // plan.tp
                    ]
                own.append({"name": name, "data": ms.Tensor(array)})
            own.append({"name": "global_step", "data": ms.Tensor(np.array([5], np.int32))})
            (folder / f"rank_{rank}").mkdir()
            path = folder / f"rank_{rank}" / "PANGUALPHA-1_5.ckpt"
            ms.save_checkpoint(own, str(path), append_dict={"epoch_num": 1, "step_num": 5})


def stages_of(name, stages):
    base = name.removeprefix("adam_m.").removeprefix("adam_v.")
    if base.startswith("backbone.blocks."):
        return [int(base.split(".")[2])]
    if base == "embedding_table":
        return [0, stages - 1]
    return [0] if "position_embedding" in base else [stages - 1]


def test_the_16_stages_of_the_200b_class(cpu, tmp_path, deep, assert_whole):
    from pangu_alpha.checkpoint.foreign.mindspore.released import released_names

    official = {}
    for ours, (theirs, flip) in released_names(DEEP).items():
        for prefix, stem in (("", "model"), ("adam_m.", "optimizer"), ("adam_v.", "optimizer")):
            array = deep[stem][prefix + ours]
            official[prefix + theirs] = np.ascontiguousarray(array.T) if flip else array
    save_official(tmp_path, official, SIXTEEN)
    options = OpenOptions(model=DEEP)
    for strategy in (True, False):
        if not strategy:
            (tmp_path / "strategy").rename(tmp_path / "aside")
        found = assert_whole(tmp_path, deep, options)
        assert found.manifest.step == 5
        assert found.manifest.config["model"]["norm_order"] == "query_then_norm"
        assert found.form.startswith("MindSpore's slices of 64 ranks, placed by")
        assert ("strategy_rank_0.ckpt" in found.form) == strategy
        assert "on several stages, read from the first: embedding_table" in found.notes[0]
        assert any(note.startswith("left aside: global_step") for note in found.notes)
    # The last stage of another save: the tied table tells, which is on the first, too.
    for rank in range(60, 64):
        spoil(tmp_path / f"rank_{rank}" / "PANGUALPHA-1_5.ckpt", ["embedding_table"])
    with pytest.raises(CheckpointError) as caught:
        open_source(tmp_path, options)
    named = [line for line in str(caught.value).splitlines() if "embedding_table is not the others'" in line]
    assert [f"rank_{rank}/" in line for rank, line in zip(range(60, 64), named, strict=True)] == [True] * 4


def test_one_rank_of_a_pipeline_is_told(tmp_path, deep):
    plan = ParallelPlan(dp=2, tp=2, pp=4, micro_batches=4)
    path = tmp_path / "step_00000007"
    write_checkpoint(path, deep, Manifest(7, 70, {"model": to_mapping(DEEP)}))
    slices = tmp_path / "slices"
    export_slices(open_source(path), slices, plan, "official", "ckpt", QUIET)
    spoil(slices / "rank_10" / "pangu_alpha.ckpt")
    for _ in ("with the strategy", "without"):
        with pytest.raises(CheckpointError, match=r"rank_10/pangu_alpha.ckpt: its \S+ is not the others'"):
            open_source(slices, OpenOptions(model=DEEP))
        (slices / STRATEGY_FILE).unlink(missing_ok=True)


def spoil(file, names=None):
    """Changes the first number of some tensors of a .ckpt, of all if none are named."""
    content, tensors = bytearray(file.read_bytes()), read_ckpt(file).tensors
    for name in names or tensors:
        content[tensors[name].extents[0][0]] ^= 1
    file.write_bytes(content)
