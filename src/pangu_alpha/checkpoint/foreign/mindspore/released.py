"""Maps the released weights' names and layouts to ours.

Knows both official graphs (2.6B and 13B: class PANGUALPHA; 200B: class PANGUALPHAPipeline).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pangu_alpha.checkpoint.native.format import compare_tensors
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.network.parameters import layer_names

if TYPE_CHECKING:
    from pangu_alpha.model.pangu import PanguAlpha

# ours -> (official, stored transposed): official are dense1..3 as [out, in], the others as [in, out]
LAYER = {
    "attention_norm.gamma": ("layernorm1.gamma", False),
    "attention_norm.beta": ("layernorm1.beta", False),
    "attention.query.weight": ("attention.dense1.weight", False),
    "attention.query.bias": ("attention.dense1.bias", False),
    "attention.key.weight": ("attention.dense2.weight", False),
    "attention.key.bias": ("attention.dense2.bias", False),
    "attention.value.weight": ("attention.dense3.weight", False),
    "attention.value.bias": ("attention.dense3.bias", False),
    "attention.output.weight": ("attention.projection.weight", True),
    "attention.output.bias": ("attention.projection.bias", False),
    "feed_forward_norm.gamma": ("layernorm2.gamma", False),
    "feed_forward_norm.beta": ("layernorm2.beta", False),
    "feed_forward.up.weight": ("output.mapping.weight", True),
    "feed_forward.up.bias": ("output.mapping.bias", False),
    "feed_forward.down.weight": ("output.projection.weight", True),
    "feed_forward.down.bias": ("output.projection.bias", False),
}

# The two classes of the official code: tables outside the layers, and where its query layer lies.
TABLES = {
    "norm_then_query": {
        "word_embedding.table": "backbone.word_embedding.embedding_table",
        "position_embedding.table": "backbone.position_embedding.embedding_table",
    },
    "query_then_norm": {
        "word_embedding.table": "embedding_table",
        "position_embedding.table": "backbone.pangu_alpha_embedding.position_embedding.embedding_table",
    },
}
SHARED = {
    "query_embedding.table": "backbone.top_query_embedding.embedding_table",
    "final_norm.gamma": "backbone.layernorm.gamma",
    "final_norm.beta": "backbone.layernorm.beta",
}


def released_names(config: ModelConfig) -> dict[str, tuple[str, bool]]:
    """Returns the official name of every parameter.

    Args:
        config: Its `norm_order` selects the official class.

    Returns:
        Our name -> (official name of 2021, whether the official array is the transpose of ours).
    """
    names = {ours: (theirs, False) for ours, theirs in (TABLES[config.norm_order] | SHARED).items()}
    last = config.num_layers - 1
    top = "top_query_layer" if config.norm_order == "norm_then_query" else f"blocks.{last}"
    for number, ours in enumerate(layer_names(config.num_layers)):
        theirs = f"backbone.{top if number == last else f'blocks.{number}'}"
        names |= {f"{ours}.{part}": (f"{theirs}.{name}", flip) for part, (name, flip) in LAYER.items()}
    return names


def load_released(model: PanguAlpha, arrays: Mapping[str, np.ndarray]) -> None:
    """Loads the values of a released checkpoint into a model.

    Args:
        model: A PanguAlpha of the same shape and norm order.
        arrays: Official name of 2021 -> array of any floating type; weights only, no moments.

    Raises:
        CheckpointError: Arrays are missing, extra or of another shape; all are listed, and nothing is loaded.
    """
    from mindspore import Tensor

    names = released_names(model.config)
    parameters = dict(model.parameters_and_names())
    expected = {}
    for ours, (theirs, flip) in names.items():
        shape = parameters[ours].shape
        expected[theirs] = (shape[::-1] if flip else shape, None)
    found = {name: (array.shape, None) for name, array in arrays.items()}
    compare_tensors(expected, found, f"released weights, {model.config.norm_order} graph")
    for ours, (theirs, flip) in names.items():
        values = np.asarray(arrays[theirs], np.float32)
        parameters[ours].set_data(Tensor(np.ascontiguousarray(values.T if flip else values)))
