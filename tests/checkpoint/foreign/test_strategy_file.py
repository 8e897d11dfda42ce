from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import (
    Cut,
    read_strategy,
    strategy_bytes,
    strategy_of,
)
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan, misfits
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts

# Written by MindSpore 2.9's save_strategy for ranks 0 and 4 of this plan of this model, in a dry run.
MADE_BY_MINDSPORE = [Path(__file__).parent / f"strategy_2_9_stage{stage}.ckpt" for stage in (0, 1)]
MODEL = ModelConfig(vocab_size=101, hidden_size=64, num_layers=3, num_heads=4, seq_length=32)
PLAN = ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2, optimizer_parallel="level1", optimizer_threshold=1)


def placed(model=MODEL, plan=PLAN):
    return layouts(model, plan)


def write(path, strategy):
    path.write_bytes(strategy_bytes(strategy))
    return path


def test_mindspores_own_files_say_what_our_layouts_say():
    stages = read_strategy(MADE_BY_MINDSPORE)
    for name, layout in placed().items():
        cut = stages[layout.stage][name]
        for rank in range(4):
            box = cut.box(rank, layout.slice_shape)
            assert box.start == layout.start(PLAN, layout.stage * 4 + rank), name
        assert cut.whole(layout.slice_shape) == layout.shape
        assert cut.slices == 4 * layout.share(PLAN)
        assert stages[layout.stage][f"adam_v.{name}"] == cut


def random_plan(rng):
    tp, pp = rng.choice((1, 2, 4)), rng.choice((1, 2, 3))
    level = rng.choice(("none", "level1", "level2"))
    return ParallelPlan(
        dp=rng.choice((1, 2, 4)) if level == "none" else 2,
        tp=tp,
        pp=pp,
        micro_batches=pp,
        optimizer_parallel=level,
        optimizer_threshold=rng.choice((0, 1, 64)),
        vocab_parallel=rng.random() < 0.5,
    )


def test_the_strategy_of_a_plan_comes_back_and_places_every_rank_as_the_plan_does(tmp_path):
    rng = random.Random(0)
    for number in range(20):
        plan = random_plan(rng)
        assert not [*misfits(plan, MODEL)]
        found = read_strategy([write(tmp_path / f"{number}.ckpt", strategy_of(placed(plan=plan), plan))])
        assert found == strategy_of(placed(plan=plan), plan)
        for name, layout in placed(plan=plan).items():
            for place in range(plan.dp * plan.tp):
                start = found[layout.stage][name].box(place, layout.slice_shape).start
                assert start == layout.start(plan, layout.stage * plan.dp * plan.tp + place)


def test_mindspore_reads_what_we_write(tmp_path):
    from mindspore.parallel._parallel_serialization import _build_protobuf_strategy, _convert_to_list

    path = write(tmp_path / "ours.ckpt", strategy_of(placed(), PLAN))
    lists = _convert_to_list(_build_protobuf_strategy(str(path)))
    assert lists.keys() == parameter_shapes(MODEL).keys()
    assert lists["query_layer.feed_forward.down.weight"] == [[2, 2], [-1, 0], [], 0, 2, 2, [1]]
    assert lists["word_embedding.table"] == [[2, 2], [0, -1], [], 0, 0, 0, [0]]
    assert lists["position_embedding.table"] == [[2, 2], [-1, -1], [], 0, 1, 4, [0]]


def test_the_merged_file_of_mindspore_is_that_of_the_stages(tmp_path):
    from mindspore.parallel._parallel_serialization import _merge_protobuf_strategy

    _merge_protobuf_strategy([str(path) for path in MADE_BY_MINDSPORE], str(tmp_path / "merged.ckpt"))
    assert read_strategy([tmp_path / "merged.ckpt"]) == read_strategy(MADE_BY_MINDSPORE)


def test_json(tmp_path):
    item = {"dev_matrix": [2, 2], "tensor_map": [-1, 0], "field": 0}
    item |= {"opt_weight_shard_step": 2, "opt_weight_shard_size": -1}
    operators = {"MatMul": {"stage": 0, "parallel_strategy": [[2, 1], [1, 2]]}}
    text = {"current_stage": 1, "parallel_strategy_item": operators, "parallel_layout_item": {"w": item}}
    (tmp_path / "s.json").write_text(json.dumps(text))
    assert read_strategy([tmp_path / "s.json"]) == {0: {"w": Cut((2, 2), ((), (0,)), 2)}}
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(CheckpointError, match="s.json: damaged, or no strategy file"):
        read_strategy([tmp_path / "s.json"])


@pytest.mark.parametrize(
    "change",
    [
        {"dev_matrix": 4}, {"dev_matrix": "22"}, {"dev_matrix": [2, 2.0]}, {"tensor_map": [0, None]},
        {"tensor_map": [[0, "x"]]}, {"opt_weight_shard_step": [1]}, {"opt_weight_shard_size": True},
        {"dev_matrix": [1 << 40]}, {"dev_matrix": []}, {"tensor_map": [0, 0]}, {"tensor_map": [7, -1]},
    ],
)  # fmt: skip
def test_json_of_other_values_is_refused(tmp_path, change):
    item = {"dev_matrix": [2, 2], "tensor_map": [-1, 0], "opt_weight_shard_step": 2}
    item |= {"opt_weight_shard_size": -1} | change
    (tmp_path / "s.json").write_text(json.dumps({"parallel_layout_item": {"w": item}}))
    with pytest.raises(CheckpointError, match=r"s.json: (damaged, or no strategy file|w: tensor map)"):
        read_strategy([tmp_path / "s.json"])


def test_json_too_deep_to_parse_is_refused(tmp_path):
    (tmp_path / "s.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="s.json: damaged, or no strategy file"):
        read_strategy([tmp_path / "s.json"])


def test_a_dimension_cut_over_two_axes_counts_the_first_as_the_outer():
    cut = Cut((2, 3, 2), ((2, 0), (1,)))
    assert cut.parts == (4, 3)
    assert cut.whole((5, 7)) == (20, 21)
    # device 7 of 12 is at (1, 0, 1): row part 1 * 2 + 1, column part 0
    assert cut.box(7, (5, 7)).start == (15, 0)
    assert cut.box(4, (5, 7)).start == (0, 14)


def test_refusals(tmp_path):
    whole = strategy_bytes(strategy_of(placed(), PLAN))
    broken = tmp_path / "broken.ckpt"
    for size in (3, len(whole) // 2, len(whole) - 1):
        broken.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="broken.ckpt: damaged, or no strategy file"):
            read_strategy([broken])
    with pytest.raises(CheckpointError, match=r"stages \[1\]"):
        read_strategy(MADE_BY_MINDSPORE[1:])
    other = write(tmp_path / "other.ckpt", {0: {"word_embedding.table": Cut((4, 1), ((), ()))}})
    with pytest.raises(CheckpointError, match="other.ckpt: says of word_embedding.table"):
        read_strategy([MADE_BY_MINDSPORE[0], other])
