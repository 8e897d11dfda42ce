"""A network that the user names: how well it predicts a given text, and answers to known prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.cluster_check.measure.operators import types_of
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.model import ComputeType
from pangu_alpha.files.reading import read_text
from pangu_alpha.files.shown import shown
from pangu_alpha.inference.load import DescribedModel, describe_for_inference, load_weights
from pangu_alpha.inference.nats import Labelled, NatsEngine, Predicted
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha

TOKENS = 1024  # of the text, at most: a CPU must score them, too
OPTIONS = OpenOptions()
PROMPTS = (
    ("中国的首都是", "北京"),
    ("四川省的省会是", "成都"),
    ("水的化学式是", "H2O"),
    ("《红楼梦》的作者是", "曹雪芹"),
    ("一年有十二个", "月"),
)


def measure(place: Place) -> dict[str, Any]:
    """Returns, by type, -log p of the text's tokens and of answers, and whether those are the likeliest."""
    described = describe_for_inference(place.setup.released, options=OPTIONS)
    texts = [*_windows(described, place.setup.text), *(_answer(described, *pair) for pair in PROMPTS)]
    types: tuple[ComputeType, ...] = ("float32",) if place.measurement == "cpu" else types_of(place.device)
    return {
        "tokens": [list(each.ids) for each in texts],
        "types": {dtype: _scored(described, dtype, texts) for dtype in types},
    }


def _windows(described: DescribedModel, file: str) -> list[Labelled]:
    """The first tokens of the text, each window as long as the context and after an end of document.

    Raises:
        ValueError: The text has no token.
    """
    ids = described.tokenizer.encode(read_text(file))[:TOKENS]
    if not ids:
        raise ValueError(f"--text: {shown(file)}: has no token; name another text")
    size, end = described.context, described.end_of_document
    return [Labelled((end, *ids[at : at + size]), 1) for at in range(0, len(ids), size)]


def _answer(described: DescribedModel, prompt: str, answer: str) -> Labelled:
    before, whole = (described.tokenizer.encode(text) for text in (prompt, prompt + answer))
    same = next((n for n, pair in enumerate(zip(before, whole, strict=False)) if pair[0] != pair[1]), None)
    first = len(before) if same is None else same
    return Labelled((described.end_of_document, *whole), 1 + min(first, len(whole) - 1))


def _scored(described: DescribedModel, dtype: ComputeType, texts: Sequence[Labelled]) -> dict[str, Any]:
    config = replace(described.config, compute_dtype=dtype, dropout=0.0)
    model = PanguAlpha(config, seed=None, operators=operators_for(config))
    load_weights(model, described.source)
    found = NatsEngine(model, described.end_of_document, batch_size=4).predict(texts)
    text, answers = found[: -len(PROMPTS)], found[-len(PROMPTS) :]
    nats = np.concatenate([each.nats for each in text])
    return {
        "perplexity": math.exp(min(float(nats.mean(dtype=np.float64)), 50.0)),
        "nats": nats.tolist(),
        "answers": {prompt: _told(each) for (prompt, _), each in zip(PROMPTS, answers, strict=True)},
    }


def _told(predicted: Predicted) -> dict[str, Any]:
    return {"nats": predicted.nats.tolist(), "likeliest": bool(predicted.likeliest.all())}
