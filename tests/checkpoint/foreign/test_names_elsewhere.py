"""Every map from our parameters' names to those of another world has exactly the table's rows."""

from __future__ import annotations

import pytest

from pangu_alpha.checkpoint.foreign.mindspore.released import LAYER, SHARED, TABLES, released_names
from pangu_alpha.checkpoint.foreign.mindspore.released_folder import TABLE_FILES
from pangu_alpha.checkpoint.foreign.torch.huggingface import PORT as HUGGINGFACE
from pangu_alpha.checkpoint.foreign.torch.megatron import _CUT
from pangu_alpha.checkpoint.foreign.torch.megatron import PORT as MEGATRON
from pangu_alpha.checkpoint.naming import _OUTSIDE
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.network.parameters import PANGU_ALPHA, parameter_table

PARTS = {row.part for row in PANGU_ALPHA if row.layers}
OUTSIDE = {row.name for row in PANGU_ALPHA if not row.layers}


@pytest.mark.parametrize("port", [HUGGINGFACE, MEGATRON], ids=["huggingface", "megatron"])
def test_ports(port):
    assert port.inside.keys() == PARTS and port.outside.keys() == OUTSIDE
    names = port.names(3)
    assert names.keys() == parameter_table(ModelConfig(8, 8, 3, 2)).keys()
    assert len(set(names.values())) == len(names)


def test_released_weights():
    assert LAYER.keys() == PARTS
    for order, tables in TABLES.items():
        assert tables.keys() | SHARED.keys() == OUTSIDE and not tables.keys() & SHARED.keys()
        config = ModelConfig(8, 8, 3, 2, norm_order=order)
        assert released_names(config).keys() == parameter_table(config).keys()
    assert set(_OUTSIDE.values()) == OUTSIDE  # the tables of 2023, too, are of parameters that there are


def test_tables_in_files_of_their_own():
    assert set(TABLE_FILES.values()) == {row.name for row in PANGU_ALPHA if row.group == "embeddings"}


def test_what_is_stored_transposed_is_a_matrix():
    for row in PANGU_ALPHA:
        assert not (row.layers and LAYER[row.part][1]) or len(row.sizes) == 2


def test_megatron_cuts_as_its_code_does():
    """Columns of query, key, value and h_to_4h with their biases, rows of the two others, both tables."""
    assert _CUT == {
        "embedding.word_embeddings.weight": 0,
        "topQueryEmbedding.top_query_embeddings.weight": 0,
        "attention.query.weight": 0,
        "attention.query.bias": 0,
        "attention.key.weight": 0,
        "attention.key.bias": 0,
        "attention.value.weight": 0,
        "attention.value.bias": 0,
        "attention.dense.weight": 1,
        "mlp.dense_h_to_4h.weight": 0,
        "mlp.dense_h_to_4h.bias": 0,
        "mlp.dense_4h_to_h.weight": 1,
    }
