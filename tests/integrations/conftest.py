"""MindFormers, imported once and late, and a tiny run exported for it."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest

TEXT = """话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。
及秦灭之后，楚、汉分争，又并入于汉。汉朝自高祖斩白蛇而起义，一统天下。"""
SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "seq_length": 24}


@pytest.fixture(scope="session")
def integration(cpu, tmp_path_factory):
    """The module under test; MindFormers writes its logs where no one looks."""
    os.environ.setdefault("LOG_MF_PATH", str(tmp_path_factory.mktemp("mindformers_logs")))
    from pangu_alpha.integrations import mindformers

    return mindformers


@pytest.fixture(scope="session")
def exported(integration, tmp_path_factory):
    """A run, what its model is made of, and the folder written from it."""
    from mindspore import Tensor

    from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
    from pangu_alpha.config.model import ModelConfig
    from pangu_alpha.model.pangu import PanguAlpha
    from pangu_alpha.text.vocabulary import train_vocabulary

    root = tmp_path_factory.mktemp("exported")
    tokenizer = train_vocabulary([TEXT], root / "run" / "vocab.model", 55)
    config = ModelConfig(**SHAPE, norm_order="query_then_norm")
    network = PanguAlpha(config, seed=3)
    random = np.random.default_rng(5)
    for name, parameter in network.parameters_and_names():
        noise = random.standard_normal(parameter.shape).astype(np.float32) * 0.2
        parameter.set_data(Tensor(noise + name.endswith("gamma")))
    arrays = {name: parameter.asnumpy() for name, parameter in network.parameters_and_names()}
    said = {"config": {"model": dataclasses.asdict(config)}, "state": {"end_of_document": "<eot>"}}
    manifest = Manifest(step=1, samples=1, tokenizer=tokenizer.digest, **said)
    write_checkpoint(root / "run" / "checkpoints" / "step_00000001", {"model": arrays}, manifest)
    integration.save_for_mindformers(root / "run", root / "out")
    return SimpleNamespace(
        run=root / "run", folder=root / "out", config=config, network=network, tokenizer=tokenizer
    )
