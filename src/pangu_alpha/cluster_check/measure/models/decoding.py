"""Logits of a decoder that takes tokens one by one, against one pass over the whole text."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Tensor

from pangu_alpha.cluster_check.measure.operators import types_of
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.model import ComputeType, ModelConfig
from pangu_alpha.inference.decoder import Decoder
from pangu_alpha.model.mask import DocumentMask
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha

VOCABULARY, CONTEXT, END, FED = 97, 80, 9, 40


def measure(place: Place) -> dict[str, Any]:
    """Returns, by type, the largest difference of logits in units of the largest logit."""
    return {"types": {dtype: _difference(dtype) for dtype in types_of(place.device)}}


def _difference(dtype: ComputeType) -> dict[str, float]:
    config = ModelConfig(VOCABULARY, 64, 3, 4, seq_length=CONTEXT, dropout=0.0, compute_dtype=dtype)
    model = PanguAlpha(config, seed=3)
    _strengthen(model)
    ids = np.random.default_rng(0).integers(10, VOCABULARY, CONTEXT)
    ids[[0, 17, 18, 55]] = END  # also twice in a row
    expected = _whole(model, ids)
    model_for_tokens = PanguAlpha(config, operators=operators_for(config, decoding=True))
    for one, other in zip(model_for_tokens.get_parameters(), model.get_parameters(), strict=True):
        one.set_data(Tensor(other.asnumpy()))
    found = _by_tokens(model_for_tokens, [int(each) for each in ids])
    scale = float(np.abs(expected).max())
    return {
        "difference": float(np.abs(found - expected[FED - 1 :]).max()) / scale,
        "same choice": float((found.argmax(-1) == expected[FED - 1 :].argmax(-1)).mean()),
    }


def _strengthen(model: PanguAlpha) -> None:
    """Makes the weights so large that attention and norms matter."""
    random = np.random.default_rng(5)
    for name, parameter in model.parameters_and_names():
        noise = random.standard_normal(parameter.shape).astype(np.float32) * 0.2
        parameter.set_data(Tensor(noise + np.float32(name.endswith("gamma"))))


def _whole(model: PanguAlpha, ids: np.ndarray) -> np.ndarray:
    """Logits [S, V] of one pass, float64."""
    documents = np.cumsum(np.pad(ids[:-1] == END, (1, 0)))
    starts = np.searchsorted(documents, documents)
    positions = np.arange(len(ids)) - starts
    mask = DocumentMask()(Tensor(documents[None].astype(np.int32)))
    logits = model(Tensor(ids[None].astype(np.int32)), Tensor(positions[None].astype(np.int32)), mask)
    return logits.asnumpy().astype(np.float64).reshape(len(ids), -1)


def _by_tokens(model: PanguAlpha, ids: list[int]) -> np.ndarray:
    """Logits [S - FED + 1, V] after the first FED tokens, which are fed together, and after each more."""
    decoder = Decoder(model, END, rows=2)
    try:
        logits = [decoder.feed(0, ids[:FED], 0)]
        for each in ids[FED:]:
            logits.append(decoder.step([each, 0], [True, False])[0])
    finally:
        decoder.close()
    return np.array(logits, np.float64)
