"""The table of parameters: what it says of PanGu-alpha, and that another network may have one of its own."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.zoo import MODEL_NAMES, load_model_config
from pangu_alpha.network.parameters import (
    PANGU_ALPHA,
    TIED_TABLE,
    find_row,
    for_all_layers,
    layer_names,
    layer_of,
    layers_expression,
    parameter_shapes,
    parameter_table,
    register_rows,
    row_by_length,
    rows_of,
)
from pangu_alpha.network.rows import Constant, Layers, Normal, Row, Stage, in_layers
from pangu_alpha.parallel.axes import degree
from pangu_alpha.parallel.sharding import HAND_MADE, SHARDING

MODEL = ModelConfig(vocab_size=61, hidden_size=24, num_layers=3, num_heads=12, seq_length=8)


def test_the_rows_of_a_network():
    table = parameter_table(MODEL)
    assert list(table)[:5] == [
        "word_embedding.table",
        "position_embedding.table",
        "query_embedding.table",
        "blocks.0.attention_norm.gamma",
        "blocks.0.attention_norm.beta",
    ]
    assert list(table)[-3:] == ["query_layer.feed_forward.down.bias", "final_norm.gamma", "final_norm.beta"]
    assert len(table) == 3 + 3 * 16 + 2
    up = table["blocks.1.feed_forward.up.weight"]
    assert (up.shape, up.axes, up.stage, up.layer) == ((96, 24), ("tp", None), Stage.LAYER, 1)
    assert up.decayed and up.init == Normal(0.02) and up.row.part == "feed_forward.up.weight"
    assert up.cell == "blocks.1" and table["query_layer.attention.key.bias"].cell == "query_layer"
    down = table["query_layer.feed_forward.down.weight"]
    assert (down.shape, down.axes, down.stage, down.layer) == ((24, 96), (None, "tp"), Stage.LAST, 2)
    assert down.init == Normal(0.02 / math.sqrt(6))
    bias = table["query_layer.attention.key.bias"]
    assert (bias.shape, bias.axes, bias.decayed, bias.init) == ((24,), ("tp",), False, Constant(0.0))
    word = table["word_embedding.table"]
    assert (word.shape, word.axes, word.stage, word.layer) == ((61, 24), ("vp", None), Stage.FIRST, None)
    assert [name for name, spec in table.items() if spec.tied] == ["word_embedding.table"]
    assert table["query_embedding.table"].stage is Stage.LAST
    assert table["query_embedding.table"].cell == "query_embedding"
    assert table["position_embedding.table"].init == Normal(0.02, cut=2.0)


def test_what_decays_and_what_does_not():
    """The 2021 recipe: matrices and tables do, vectors do not."""
    assert {row.name for row in PANGU_ALPHA if row.decayed} == {
        row.name for row in PANGU_ALPHA if len(row.sizes) == 2
    }


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_sizes_are_those_of_the_formula(name):
    model = load_model_config(name)
    assert sum(math.prod(shape) for shape in parameter_shapes(model).values()) == model.parameter_count


def test_the_network_has_exactly_these(cpu):
    from pangu_alpha.model.pangu import PanguAlpha

    network = PanguAlpha(MODEL, None)
    built = {name: tuple(each.shape) for name, each in network.parameters_and_names()}
    assert built == parameter_shapes(MODEL)
    assert all(each.name == name for name, each in network.parameters_and_names())


@pytest.mark.parametrize("row", PANGU_ALPHA, ids=lambda row: row.name)
def test_axes_are_those_of_the_operators(row):
    assert row.uses
    for cell, operator, place in row.uses:
        assert SHARDING[cell][operator].inputs[place] == row.axes, (cell, operator)


def test_uses_are_those_of_the_network(cpu):
    """Every parameter is read by a cell of the kinds that its row names, under the row's attribute."""
    from pangu_alpha.model.operators import operators_for
    from pangu_alpha.model.pangu import PanguAlpha
    from pangu_alpha.training.loss import TokenLoss

    network = PanguAlpha(MODEL, None, operators_for(MODEL, "plain"))
    cells = {path.removeprefix("model."): cell for path, cell in TokenLoss(network).cells_and_names()}
    for name, spec in parameter_table(MODEL).items():
        owner = name.rpartition(".")[0]
        near = [path for path in cells if f"{path}.".startswith(f"{owner}.")]
        near += ["logits", "cross_entropy"] if spec.tied else []
        found = {
            HAND_MADE.key(path.split("."), type(cells[path]).__name__): vars(cells[path]).get("_primitives")
            for path in near
        }
        for cell, operator, _ in spec.row.uses:
            assert operator in found[cell], (name, cell, operator, found.keys())


def test_what_is_read_in_the_compute_type_alone_passes_a_cast_of_its_own():
    """Linears cast weight and bias. The tied table is looked up in float32, too, and cast for the logits."""
    for row in PANGU_ALPHA:
        kinds = {cell.split()[0] for cell, _, _ in row.uses}
        assert row.cast == (kinds == {"Affine"}), row.name
        if row.cast:
            linear = row.uses[0].cell.replace("Affine", "Linear")
            assert SHARDING[linear][f"cast_{row.name.rpartition('.')[2]}"].inputs[0] == row.axes


def test_every_axis_has_a_meaning_under_a_plan():
    named = {axis for row in PANGU_ALPHA for axis in row.axes}
    plan = ParallelPlan(dp=2, tp=4)
    assert {axis: degree(axis, plan) for axis in named} == {None: 1, "tp": 4, "vp": 4}


def test_a_row_by_the_name_of_a_parameter():
    assert find_row("blocks.17.attention.output.bias").name == "blocks.*.attention.output.bias"
    assert find_row("query_layer.attention.output.bias").name == "query_layer.attention.output.bias"
    for strange in (
        "blocks.*.attention.output.bias",
        "final_norm.0.gamma",
        "blocks.1.query_layer.attention.output.bias",
        "blocks.x.attention.output.bias",
        "adam_m.final_norm.gamma",
        "final_norm.gamma.",
        "blocks",
    ):
        assert find_row(strange) is None


def test_rows_by_length():
    assert row_by_length("vocab_size") is TIED_TABLE
    assert row_by_length("seq_length").name == "position_embedding.table"


def test_layers_by_name():
    assert layer_names(3) == ["blocks.0", "blocks.1", "query_layer"] and layer_names(1) == ["query_layer"]
    assert layers_expression("N") == r"blocks\.N|query_layer"
    assert layer_of("blocks.1.attention.core.dropout", MODEL) == 1
    assert layer_of("query_layer.attention_dropout", MODEL) == layer_of("query_layer", MODEL) == 2
    assert (
        layer_of("blocks.1x", MODEL)
        is layer_of("query_layers.x", MODEL)
        is layer_of("final_norm", MODEL)
        is None
    )
    assert for_all_layers("blocks.31.attention.core") == "blocks.*.attention.core"
    assert for_all_layers("query_layer.add") == "query_layer.add"
    assert for_all_layers("word_embedding.table") == "word_embedding.table"


def test_groups_are_what_summaries_count():
    counts = Counter(spec.row.group for spec in parameter_table(MODEL).values())
    assert counts == {"embeddings": 3, "attention": 24, "feed-forward": 12, "norms": 14}


@dataclass(frozen=True)
class Tower:
    """A network of another kind."""

    width: int = 4
    depth: int = 2


@dataclass(frozen=True)
class TallTower(Tower):
    """One that has the same parameters."""


LEVELS = Layers("floors.*")
TOWER = (
    Row("ground.weight", "3 W", Normal(0.1), True, (None, "tp"), Stage.FIRST),
    *in_layers(
        LEVELS, Stage.LAYER, [Row("beam", "W W", Normal(1.0, residual=True), True, (None,) * 2, Stage.LAST)]
    ),
    Row("roof.shift", "W", Constant(2.0), False, (None,), Stage.LAST),
)
register_rows(Tower, TOWER, {"W": "width"}, layers="depth")


def test_a_network_of_another_kind():
    table = parameter_table(Tower())
    assert {name: spec.shape for name, spec in table.items()} == {
        "ground.weight": (3, 4),
        "floors.0.beam": (4, 4),
        "floors.1.beam": (4, 4),
        "roof.shift": (4,),
    }
    assert table["floors.1.beam"].init == Normal(0.5)  # 1 / sqrt(2 * 2)
    assert table["floors.1.beam"].layer == 1 and table["floors.1.beam"].row.part == "beam"
    assert parameter_shapes(Tower(width=2, depth=1)) == {
        "ground.weight": (3, 2),
        "floors.0.beam": (2, 2),
        "roof.shift": (2,),
    }
    assert rows_of(TallTower) == TOWER and find_row("floors.3.beam", Tower) is TOWER[1]
    assert find_row("floors.3.beam") is None  # PanGu-alpha has no floors


def test_rows_of_a_type_are_said_once():
    register_rows(Tower, TOWER, {"W": "width"}, layers="depth")  # a module that is imported anew
    with pytest.raises(ValueError, match="Tower: has other rows already"):
        register_rows(Tower, TOWER[:1], {"W": "width"}, layers="depth")
    with pytest.raises(TypeError, match="int: no rows are registered for it"):
        parameter_table(3)


@pytest.mark.parametrize(
    "row, problem",
    [
        (Row("a", "H H", Constant(0.0), False, (None,), Stage.FIRST), "a: 1 axes for 2 dimensions"),
        (Row("a", "H Q", Constant(0.0), False, (None,) * 2, Stage.FIRST), "a: nothing says what Q is"),
        (
            Row("a", "H", Constant(0.0), False, (None,), Stage.LAYER),
            "a: on the stage of its layer, but in none",
        ),
        (
            Row("a", "H", Constant(0.0), False, (None,), Stage.LAYER, Layers("b.*")),
            "a: does not begin with its layers' name, b.*",
        ),
    ],
)
def test_a_row_that_says_nonsense(row, problem):
    with pytest.raises(ValueError) as error:
        register_rows(bool, [row])
    assert str(error.value) == f"bool: {problem}"
    with pytest.raises(ValueError, match="bool: a is there twice"):
        register_rows(bool, [Row("a", "H", Constant(0.0), False, (None,), Stage.FIRST)] * 2)
