"""Sizes that several places say must be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.sizes import (
    FEED_FORWARD,
    TIED,
    layer_count,
    matrix,
    model_statement,
    refuse_contradictions,
    shipped_layers,
    sizes_of_ours,
    stated,
)
from pangu_alpha.checkpoint.tensors import Piece, Stored, whole
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.zoo import load_model_config

HERE = Path("folder")
NAMES = {"num_layers": ("num_layers", "n_layer"), "num_heads": ("num_heads",), TIED: ("tie_word_embeddings",)}
SHOWN = {"num_layers": 2, "hidden_size": 32, "vocab_size": 64}


def tensor(*shape):
    return Stored(shape, (Piece(whole(shape), Path("f.safetensors"), (), "float32"),))


def test_every_difference_is_named():
    config = stated("config.json", {"num_layers": 3, "num_heads": 4, "tie_word_embeddings": False}, NAMES)
    model = ModelConfig(vocab_size=80, hidden_size=32, num_layers=2, num_heads=8, seq_length=16)
    with pytest.raises(CheckpointError) as error:
        refuse_contradictions(SHOWN, [*config, model_statement(model, "--model")], HERE)
    assert str(error.value).splitlines()[1:] == [
        "  - num_layers: config.json says 3, the tensors show 2",
        "  - tie_word_embeddings: config.json says false, PanGu-alpha has true",
        "  - vocab_size: --model says 80, the tensors show 64",
        "  - num_heads: --model says 8, config.json says 4",
    ]


def test_what_agrees_and_what_says_nothing_is_let_pass():
    config = stated("config.json", {"num_layers": 2, "num_heads": None, "tie_word_embeddings": True}, NAMES)
    assert "num_heads" not in config[0].sizes
    refuse_contradictions(SHOWN, config, HERE)


def test_a_file_may_contradict_itself():
    config = stated("config.json", {"num_layers": 2, "n_layer": 3}, NAMES)
    with pytest.raises(CheckpointError, match="n_layer: config.json says 3, the tensors show 2"):
        refuse_contradictions(SHOWN, config, HERE)


def test_the_inner_width_is_four_times_the_hidden_one():
    config = stated("config.json", {"intermediate_size": 64}, {FEED_FORWARD: ("intermediate_size",)})
    with pytest.raises(CheckpointError, match="intermediate_size: config.json says 64, PanGu-alpha has 128"):
        refuse_contradictions(SHOWN, config, HERE)


@pytest.mark.parametrize("value", ["3", 3.0, True, -1, 0, 1 << 40, [3], {}])
def test_a_size_is_a_whole_number(value):
    with pytest.raises(CheckpointError, match="config.json: num_layers is .* no size of a network"):
        stated("config.json", {"num_layers": value}, NAMES)


def test_layers_are_counted_by_their_numbers():
    assert layer_count(["h.0.a", "h.1.a", "h.0.b", "x"], "h.", HERE) == 2
    assert layer_count(["x"], "h.", HERE) == 0
    with pytest.raises(CheckpointError, match=r"folder: missing: layers 1, 3 to 5; 3 are there, named h.N"):
        layer_count(["h.0.a", "h.2.a", "h.6.a"], "h.", HERE)


def test_a_layer_of_a_great_number_is_no_reason_to_count_to_it():
    with pytest.raises(CheckpointError, match="missing: layers 0 to 99999998; 1 are there"):
        layer_count(["h.99999999.a"], "h.", HERE)
    with pytest.raises(CheckpointError, match="3,000 layers, named h.N, which no network has"):
        layer_count([f"h.{number}.a" for number in range(3000)], "h.", HERE)


@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 2)])
def test_a_table_of_another_rank_is_named_with_its_file(shape):
    with pytest.raises(CheckpointError, match=rf"f.safetensors: t is .*: {len(shape)} dimensions, not rows"):
        matrix({"t": tensor(*shape)}, "t", HERE)
    with pytest.raises(CheckpointError, match="folder: missing: t"):
        matrix({}, "t", HERE)


def test_heads_are_not_taken_from_a_model_of_which_layers_are_lost():
    shipped = load_model_config("2_6b")
    for layers in (31, 17):
        with pytest.raises(
            UnclearError, match=f"{layers} layers; the shipped model .* has 32: are layers lost"
        ):
            shipped_layers(layers, shipped, HERE)
    for layers in (32, 16, 1, 40):  # all of it, or another network
        shipped_layers(layers, shipped, HERE)


def test_our_own_sizes():
    found = {
        "word_embedding.table": tensor(64, 32),
        "position_embedding.table": tensor(16, 32),
        "blocks.0.attention_norm.gamma": tensor(32),
        "query_layer.attention_norm.gamma": tensor(32),
    }
    sizes = {"vocab_size": 64, "hidden_size": 32, "seq_length": 16, "num_layers": 2}
    assert sizes_of_ours(found, HERE) == sizes
    assert sizes_of_ours({"surplus": tensor(3)}, HERE) == {}
