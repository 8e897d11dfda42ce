"""The architecture: on one screen, free of plans, documents apart, half precision within bounds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

import pangu_alpha.model
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.zoo import MODEL_NAMES, load_model_card, load_model_config
from pangu_alpha.model.mask import DocumentMask
from pangu_alpha.model.pangu import PanguAlpha

FOLDER = Path(pangu_alpha.model.__file__).parent
SHAPE = {"vocab_size": 90, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "seq_length": 16}
PUBLISHED = {"2_6b": 2_625_295_360, "13b": 12_800_870_400, "200b": 206_861_008_896}


def test_parameter_counts():
    assert {name: load_model_config(name).parameter_count for name in PUBLISHED} == PUBLISHED
    for name in MODEL_NAMES:
        assert load_model_card(name).about.parameter_count == load_model_config(name).parameter_count


def test_the_count_is_that_of_the_cells(cpu):
    config = ModelConfig(**SHAPE)
    model = PanguAlpha(config)
    assert sum(parameter.size for parameter in model.trainable_params()) == config.parameter_count
    assert all(parameter.name == name for name, parameter in model.parameters_and_names())


def test_the_architecture_fits_on_a_screen():
    lines = (FOLDER / "pangu.py").read_text("utf-8").split("\n")
    assert len(lines) <= 110


def test_the_model_knows_no_plan():
    words = re.compile(r"\brank|\bshard|pipeline_stage|\bmesh\b|print\(|Path\(|import logging")
    # library.py compiles kernels, and is no part of the network.
    for path in {*FOLDER.rglob("*.py")} - {FOLDER / "operators" / "native" / "library.py"}:
        assert not words.search(path.read_text("utf-8")), path


@pytest.mark.parametrize("order", ["norm_then_query", "query_then_norm"])
def test_a_document_never_sees_another(cpu, order):
    """Whatever stands in document 1, document 2's logits are the same to the last bit."""
    model = PanguAlpha(ModelConfig(**SHAPE, norm_order=order))
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 90, (1, 16)).astype(np.int32)
    other = ids.copy()
    other[0, :6] = rng.integers(10, 90, 6)
    documents = np.repeat([0, 1], [7, 9]).astype(np.int32)[None]
    positions = np.concatenate([np.arange(7), np.arange(9)]).astype(np.int32)[None]
    mask = DocumentMask()(Tensor(documents))
    one, two = (model(Tensor(x), Tensor(positions), mask).asnumpy() for x in (ids, other))
    assert np.array_equal(one[0, 7:], two[0, 7:])
    assert np.abs(one[0, :7] - two[0, :7]).max() > 1e-3
    alone = model(Tensor(ids[:, 7:]), Tensor(positions[:, 7:]), DocumentMask()(Tensor(documents[:, 7:])))
    assert np.abs(alone.asnumpy() - one[:, 7:]).max() <= 1e-5


def test_float16_is_near_float32_with_float32_masters(cpu):
    batch = np.random.default_rng(0).integers(10, 90, (2, 16)).astype(np.int32)
    positions = np.tile(np.arange(16, dtype=np.int32), (2, 1))
    mask = Tensor(np.tile(np.tril(np.ones((16, 16), np.float32)), (2, 1, 1)))
    logits = {}
    for dtype in ("float32", "float16"):
        model = PanguAlpha(ModelConfig(**SHAPE, compute_dtype=dtype))
        assert {str(parameter.dtype) for parameter in model.trainable_params()} == {"Float32"}
        out = model(Tensor(batch), Tensor(positions), mask)
        assert str(out.dtype).lower() == dtype
        logits[dtype] = out.asnumpy().astype(np.float32)
    scale = np.abs(logits["float32"]).max()
    assert 0 < np.abs(logits["float16"] - logits["float32"]).max() < 1e-2 * scale
