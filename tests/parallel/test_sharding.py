"""The table covers every operator of every network, and cuts parameters as the released 2.6B was cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mindspore import nn, ops

from pangu_alpha.checkpoint.foreign.mindspore.released import released_names
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.network.parameters import find_row
from pangu_alpha.parallel.apply import operators, place_on_stages, shard
from pangu_alpha.parallel.axes import degree
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.parallel.sharding import DERIVED, HAND_MADE, SHARDING
from pangu_alpha.training.loss import MicroBatchLoss, TokenLoss

RELEASED = Path(__file__).parents[1] / "fixtures" / "released_2_6b_axes.json"
PLAN = ParallelPlan(dp=2, tp=4, pp=2, micro_batches=2)


def network(device="plain", chip="auto", device_dropout=None, **changes):
    values = {"vocab_size": 64, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "seq_length": 8}
    config = ModelConfig(**values | {"dropout": 0.0} | changes)
    model = PanguAlpha(config, None, operators_for(config, device, chip=chip, device_dropout=device_dropout))
    return MicroBatchLoss(TokenLoss(model)), model


@pytest.mark.parametrize(("device", "chip"), [("plain", "auto"), ("Ascend", "910A"), ("Ascend", "910B")])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation": "fast_gelu"},
        {"compute_dtype": "float16"},
        {"compute_dtype": "float16", "dropout": 0.1},
        {"norm_order": "query_then_norm"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "default",
)
def test_every_operator_has_an_entry(cpu, device, chip, changes):
    loss, _ = network(device, chip, **changes)
    found = [(row, name) for row, name, operator in operators(loss) if operator.name not in DERIVED]
    assert len(found) > 100
    assert not {(row, name) for row, name in found if name not in SHARDING.get(row, {})}


def test_an_operator_without_an_entry_is_named(cpu):
    loss, model = network()
    model.blocks[0].attention.core.extra = ops.Mul()
    with pytest.raises(KeyError, match="AttentionCore.extra"):
        shard(loss, PLAN, HAND_MADE)


def test_no_entry_is_dead(cpu):
    used = set()
    for changes in ({}, {"compute_dtype": "float16"}, {"compute_dtype": "float16", "dropout": 0.1}):
        for device, chip in (("plain", "auto"), ("Ascend", "910A"), ("Ascend", "910B")):
            for activation in ("gelu", "fast_gelu"):
                loss, _ = network(device, chip, activation=activation, **changes)
                used |= {(row, name) for row, name, _ in operators(loss)}
    loss, _ = network("Ascend", device_dropout=(1, 0, 0), dropout=0.1)
    used |= {(row, name) for row, name, _ in operators(loss)}
    listed = {(row, name) for row, entries in SHARDING.items() for name in entries}
    assert listed - used == set()


def test_strategies_are_the_tables_axes_in_numbers(cpu):
    loss, model = network()
    shard(loss, ParallelPlan(dp=2, tp=4, sequence_parallel=True), HAND_MADE)
    block = model.blocks[0]
    assert block.attention.query.affine.matmul.attrs["in_strategy"] == ((2, 1), (4, 1))
    assert block.attention.output.affine.matmul.attrs["in_strategy"] == ((2, 4), (1, 4))
    assert block.attention.output.affine.matmul.attrs["out_strategy"] == ((8, 1),)
    assert block.attention_norm.normalize.norm.attrs["in_strategy"] == ((8, 1), (1,), (1,))
    assert model.word_embedding.gather.attrs["in_strategy"] == ((4, 1), (2, 1))
    assert model.position_embedding.gather.attrs["in_strategy"] == ((1, 1), (2, 1))


def test_axis_names_in_numbers():
    def numbers(plan):
        return {axis: degree(axis, plan) for axis in (None, "dp", "tp", "sp", "vp", "lp")}

    assert numbers(ParallelPlan(dp=2, tp=4)) == {None: 1, "dp": 2, "tp": 4, "sp": 2, "vp": 4, "lp": 2}
    plan = ParallelPlan(dp=2, tp=4, sequence_parallel=True, vocab_parallel=False)
    assert numbers(plan) == {None: 1, "dp": 2, "tp": 4, "sp": 8, "vp": 1, "lp": 8}


def test_stages(cpu):
    loss, model = network(num_layers=5)
    place_on_stages(loss, model, ParallelPlan(pp=2, micro_batches=2, layers_per_stage=(2, 3)))
    assert [block.pipeline_stage for block in model.blocks] == [0, 0, 1, 1]
    assert model.query_layer.pipeline_stage == model.final_norm.pipeline_stage == 1
    assert model.query_embedding.pipeline_stage == 1
    assert model.word_embedding.pipeline_stage == model.position_embedding.pipeline_stage == 0


def test_tensor_axes_are_those_of_the_released_checkpoint():
    """The 2.6B strategy file, dp 64 tp 8: axis 0 of its device matrix, counted from the right, is tp.

    There the vocabulary was not split, as under vocab_parallel false.
    """
    released = json.loads(RELEASED.read_text("utf-8"))
    compared = 0
    for name, (official, transposed) in released_names(load_model_config("2_6b")).items():
        axes = tuple({"tp": 0, "vp": -1, None: -1}[axis] for axis in find_row(name).axes)
        assert (axes[::-1] if transposed else axes) == tuple(released[official]), name
        compared += 1
    assert compared == len(released)


def test_layouts():
    model = load_model_config("200b")
    plan = ParallelPlan(dp=16, tp=8, pp=16, micro_batches=32, optimizer_parallel="level1")
    h, found = model.hidden_size, layouts(model, plan)
    assert found["blocks.62.attention.query.weight"].slice_shape == (h // 8 // 16, h)
    assert found["blocks.62.attention.query.weight"].stage == 15
    assert found["blocks.4.feed_forward.down.weight"].slice_shape == (h // 16, 4 * h // 8)
    assert found["blocks.4.feed_forward.down.weight"].stage == 1
    assert found["word_embedding.table"].slice_shape == (5000, h)  # on two stages: not sharded further
    assert found["query_layer.attention_norm.gamma"].slice_shape == (h // 128,)
    # MindSpore compares the threshold with the whole parameter: 64 KB of which a device holds 8
    assert found["blocks.0.attention.query.bias"].slice_shape == (h // 8 // 16,)
    assert found["query_layer.attention_norm.gamma"].share(plan) == 1.0
    assert found["word_embedding.table"].share(plan) == 1 / 16


def test_vocabulary_is_padded_with_zeros(cpu):
    from pangu_alpha.parallel.apply import pad_vocabulary

    config = ModelConfig(63, 32, 3, 4, seq_length=8, dropout=0.0)
    model = PanguAlpha(config, 1, operators_for(config, "plain"))
    before = model.word_embedding.table.asnumpy()
    pad_vocabulary(model, PLAN)
    table = model.word_embedding.table
    assert table.shape == (64, 32) and table.name == "word_embedding.table"
    assert (table.asnumpy()[:63] == before).all() and not table.asnumpy()[63:].any()
    assert table.name in {parameter.name for parameter in model.trainable_params()}


def test_padding_is_never_likely(cpu):
    """The loss with a padded table equals that without, whatever the padding holds."""
    import numpy as np
    from mindspore import Tensor

    from pangu_alpha.model.operators import plain

    random = np.random.default_rng(0)
    x, table = random.normal(size=(6, 8)).astype(np.float32), random.normal(size=(12, 8)).astype(np.float32)
    labels = Tensor(random.integers(0, 10, 6).astype(np.int32))
    loss: nn.Cell = plain.TiedCrossEntropy(10)
    whole = loss(Tensor(x), Tensor(table[:10]), labels).asnumpy()
    padded = loss(Tensor(x), Tensor(table), labels).asnumpy()
    assert np.abs(whole - padded).max() <= 1e-6
    gradient = ops.grad(plain.TiedCrossEntropy(10), 1)(Tensor(x), Tensor(table), labels).asnumpy()
    assert not gradient[10:].any() and gradient[:10].any()
