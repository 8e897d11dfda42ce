"""A tiny model whose logits differ clearly between tokens, and its full pass."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest

VOCAB, CONTEXT, END = 97, 96, 9
_CHARACTERS = "天下大势分久必合久合周末七国争并入于秦及灭之后楚汉。，"


@pytest.fixture(scope="session")
def build_model(cpu):
    """Makes a model of random weights large enough for attention and norms to matter."""
    return _build_model


@pytest.fixture(scope="session", params=["norm_then_query", "query_then_norm"])
def each_model(request, cpu):
    """A model of either order of norm and query layer."""
    return _build_model(norm_order=request.param)


@pytest.fixture(scope="session")
def model(cpu):
    """A model for generation."""
    return _build_model()


@pytest.fixture(scope="session")
def full_logits(cpu):
    """[B, S, V] of (model, rows of ids): the full pass without a cache."""
    return _full_logits


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    """A small vocabulary's file."""
    from pangu_alpha.text.vocabulary import train_vocabulary

    rng = random.Random(1)
    texts = ["".join(rng.choices(_CHARACTERS, k=40)) for _ in range(60)]
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.model"
    train_vocabulary(texts, path, 56)
    return path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory, vocabulary, build_model):
    """What a training run leaves: two checkpoints of different weights and the vocabulary."""
    from pangu_alpha.checkpoint.native.format import Manifest
    from pangu_alpha.checkpoint.native.store import CheckpointStore
    from pangu_alpha.config.schema import to_mapping
    from pangu_alpha.text.tokenizer import PanguTokenizer

    folder = tmp_path_factory.mktemp("run")
    shutil.copy(vocabulary, folder / "vocab.model")
    model = build_model(vocab_size=60, num_layers=2)  # a command compiles several graphs of it
    store = CheckpointStore(folder / "checkpoints", keep_last=5)
    for step in (10, 20):
        arrays = {name: value.asnumpy() * (step / 20) for name, value in model.parameters_and_names()}
        config = {"model": to_mapping(model.config)}
        manifest = Manifest(step, 0, config, PanguTokenizer(vocabulary).digest)
        store.save({"model": arrays}, manifest)
    return folder


def _build_model(device=None, **changes):
    from mindspore import Tensor

    from pangu_alpha.config.model import ModelConfig
    from pangu_alpha.model.operators import operators_for
    from pangu_alpha.model.pangu import PanguAlpha

    shape = {"vocab_size": VOCAB, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "seq_length": CONTEXT}
    config = ModelConfig(**{**shape, **changes})
    model = PanguAlpha(config, seed=3, operators=operators_for(config, device))
    rng = np.random.default_rng(5)
    for name, parameter in model.parameters_and_names():
        noise = rng.standard_normal(parameter.shape).astype(np.float32) * 0.2
        parameter.set_data(Tensor(noise + name.endswith("gamma")))
    return model.set_train(False)


def _full_logits(model, rows):
    # the rule of documents, written out once more, slowly
    from mindspore import Tensor

    length = model.config.seq_length
    ids = np.zeros((len(rows), length), np.int32)
    positions = np.zeros_like(ids)
    mask = np.zeros((len(rows), length, length), np.float32)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        start = 0
        for place in range(length):
            positions[row, place] = place - start
            mask[row, place, start : place + 1] = 1
            if place < len(tokens) and tokens[place] == END:
                start = place + 1
    return model(Tensor(ids), Tensor(positions), Tensor(mask)).asnumpy()
