"""The network computes what both official graphs compute: logits, losses and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor

from pangu_alpha.checkpoint.foreign.mindspore.released import load_released, released_names
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.mask import DocumentMask
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.training.loss import BatchLoss, TokenLoss
from pangu_alpha.training.step import Gradients

ORDERS = {"plain": "norm_then_query", "pipeline": "query_then_norm"}
END_OF_DOCUMENT, PAD = 9, 6  # of the official code that made the oracle


def arrays(oracle, prefix):
    return {name[len(prefix) :]: array for name, array in oracle.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def models(cpu, oracle):
    """Official graph, operators' device -> model with the oracle's weights."""
    found = {}
    for graph, order in ORDERS.items():
        for device in ("CPU", "plain"):
            config = ModelConfig(1000, 64, 3, 4, seq_length=32, norm_order=order)
            found[graph, device] = PanguAlpha(config, operators=operators_for(config, device))
            load_released(found[graph, device], arrays(oracle, f"{graph}/param/"))
    return found


def batch_of(oracle, case):
    """input_ids, labels, loss_mask, position_ids, document_ids of a case."""
    window = oracle[f"{case}/input_ids"].astype(np.int32)
    ids = window[:, :-1]
    ends = np.pad(ids[:, :-1] == END_OF_DOCUMENT, ((0, 0), (1, 0)))
    fields = (
        ids,
        window[:, 1:],
        (ids != PAD).astype(np.float32),
        oracle[f"{case}/position_ids"].astype(np.int32),
        np.cumsum(ends, 1).astype(np.int32),
    )
    return [Tensor(np.ascontiguousarray(field)) for field in fields]


@pytest.mark.parametrize("device", ["CPU", "plain"])
@pytest.mark.parametrize("case", ["plain/A", "plain/B", "plain/C", "pipeline/A"])
def test_logits(models, oracle, case, device):
    model = models[case.split("/")[0], device]
    ids = oracle[f"{case}/input_ids"].astype(np.int32)[:, :32]
    positions = oracle.get(f"{case}/position_ids", np.tile(np.arange(32), (len(ids), 1)))
    mask = oracle[f"{case}/attention_mask"].astype(np.float32)
    logits = model(Tensor(ids), Tensor(positions.astype(np.int32)), Tensor(mask)).asnumpy()
    assert logits.shape == (2, 32, 1000)
    difference = np.abs(logits.reshape(-1, 1000) - oracle[f"{case}/logits"].reshape(-1, 1000)).max(1)
    if case == "plain/C":  # rows of pads attend to everything in equal parts: nobody reads them
        difference = difference[ids.ravel() != PAD]
    assert difference.max() <= 2e-4


@pytest.mark.parametrize("device", ["CPU", "plain"])
@pytest.mark.parametrize("case", ["plain/A", "plain/B", "pipeline/A"])
def test_losses_and_gradients(models, oracle, case, device):
    model = models[case.split("/")[0], device]
    batch = batch_of(oracle, case)
    parameters = ParameterTuple(model.trainable_params())
    loss = TokenLoss(model)
    nll = loss(batch[0], batch[1], batch[3], batch[4]).asnumpy()
    assert np.abs(nll.ravel() - oracle[f"{case}/per_token_loss"].ravel()).max() <= 1e-4

    gradients, rows, tokens = Gradients(BatchLoss(loss), parameters)(Tensor(np.float32(1)), *batch)
    count = float(tokens.asnumpy()) + 1e-5
    total = float(np.ravel(oracle[f"{case}/total_loss"])[0])
    assert rows.asnumpy().sum() / count == pytest.approx(total, abs=1e-5)
    found = {p.name: g.asnumpy() / count for p, g in zip(parameters, gradients, strict=True)}
    norm = np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in found.values()))
    assert norm == pytest.approx(float(np.ravel(oracle[f"{case}/grad_global_norm"])[0]), rel=1e-5)
    for ours, (theirs, flip) in released_names(model.config).items():
        gradient = found[ours].T if flip else found[ours]
        expected = oracle[f"{case}/grad/{theirs}"]
        if theirs.endswith("attention.dense2.bias"):  # softmax ignores what all its scores share
            assert np.abs(gradient).max() <= 1e-6 * norm
        else:
            assert np.abs(gradient - expected).max() <= 1e-3 * np.abs(expected).max(), theirs


def test_mask_of_documents_is_the_official_one(cpu, oracle):
    batch = batch_of(oracle, "plain/B")
    mask = DocumentMask()(batch[4]).asnumpy()
    np.testing.assert_array_equal(mask, oracle["plain/B/attention_mask"])


def test_released_arrays_must_fit(models, oracle):
    model = models["plain", "CPU"]
    good = arrays(oracle, "plain/param/")
    before = {p.name: p.asnumpy().copy() for p in model.trainable_params()}
    bad = {name: array for name, array in good.items() if name != "backbone.layernorm.gamma"}
    bad["backbone.blocks.0.output.mapping.weight"] = np.zeros((64, 64), np.float32)
    bad["adam_m.backbone.layernorm.gamma"] = np.zeros(64, np.float32)
    with pytest.raises(ValueError, match="3 tensors do not fit the 53 expected") as error:
        load_released(model, bad)
    for part in (
        "missing: backbone.layernorm.gamma",
        "extra: adam_m",
        "mapping.weight [64, 256], found [64, 64]",
    ):
        assert part in str(error.value)
    assert all(np.array_equal(before[p.name], p.asnumpy()) for p in model.trainable_params())
    with pytest.raises(ValueError, match="query_then_norm"):  # the other graph's names
        load_released(models["pipeline", "CPU"], good)
