"""Shipped models, runs and their problems."""

from __future__ import annotations

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.run import build_train_config, load_train_config, unrunnable, unused
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.config.zoo import MODEL_NAMES, load_model_card, load_model_config, load_network

RUN = {"data": {"train": {"a": {"records": "x"}}}, "run": {"output": "o", "steps": 3}}


def test_every_shipped_model_loads():
    orders = {name: load_model_config(name).norm_order for name in MODEL_NAMES}
    assert orders["200b"] == "query_then_norm"
    assert all(order == "norm_then_query" for name, order in orders.items() if name != "200b")
    assert all(load_model_card(name).about.summary for name in MODEL_NAMES)


def test_medium_precision_is_for_float32_products_on_a_cpu():
    def config(model, **run):
        return build_train_config(
            {**RUN, "model": model, "run": {**RUN["run"], "float32_matmul_precision": "medium", **run}}
        )

    accepted = config({"base": "tiny", "compute_dtype": "float32"}, device="CPU")
    assert not list(unrunnable(accepted, partitioned=False))
    (problem,) = [each for each in unrunnable(accepted, partitioned=True) if "precision" in each]
    assert problem.startswith("run.float32_matmul_precision: 'medium' is for CPUs only; leave it out")
    with pytest.raises(ConfigError, match="'medium' is for CPUs only; leave it out, because on Ascend"):
        config("tiny", device="Ascend")
    with pytest.raises(ConfigError, match="but model.compute_dtype is float16; leave one of the two out"):
        config({"base": "tiny", "compute_dtype": "float16"})
    with pytest.raises(ConfigError, match="run.float32_matmul_precision"):
        config("tiny", float32_matmul_precision="high")


def test_a_wrong_name_shows_the_nearest():
    with pytest.raises(ConfigError, match="did you mean '2_6b'"):
        load_model_config("2.6b")


def test_several_problems_of_a_model_at_once():
    with pytest.raises(ConfigError) as error:
        ModelConfig(vocab_size=0, hidden_size=30, num_layers=2, num_heads=4, dropout=1.5, norm_order="both")
    keys = {problem.partition(":")[0] for problem in error.value.problems}
    assert keys == {"vocab_size", "num_heads", "dropout", "norm_order"}


def test_a_run_reports_all_sections_at_once():
    with pytest.raises(ConfigError) as error:
        build_train_config(
            {
                "model": {"base": "tiny", "hiden_size": 64, "num_heads": 7},
                "data": {"train": {}},
                "optim": {"learning_rate": -1.0, "beta1": "x"},
                "run": {"steps": 0, "seed": 2**31, "output": "o"},
                "extra": 1,
            }
        )
    text = str(error.value)
    for part in ("model.hiden_size", "model.num_heads", "data.train", "optim.learning_rate", "optim.beta1"):
        assert part in text
    assert "run.steps" in text and "run.seed" in text and "extra: unknown key" in text


def test_an_unknown_model_does_not_hide_the_rest():
    with pytest.raises(ConfigError) as error:
        build_train_config({**RUN, "model": "tinny", "run": {"output": "o"}})
    assert "did you mean 'tiny'" in str(error.value) and "run.steps: missing" in str(error.value)


def test_a_model_by_name_brings_its_recipe():
    config = build_train_config({**RUN, "model": "13b", "optim": {"warmup_steps": 7}})
    assert config.optim.learning_rate == 5e-5 and config.optim.warmup_steps == 7
    small = build_train_config({**RUN, "model": {"base": "13b", "num_layers": 2}})
    assert small.model.num_layers == 2 and small.model.hidden_size == 5120


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("model: 13b", 5e-5),
        ("model: {base: 13b, vocab_size: 8000}", 5e-5),
        ("model: {base: 13b, vocab_size: 8000}\noptim: {learning_rate: 1e-3}\nrun: {steps: 3}", 1e-3),
        ("{base: 13b, vocab_size: 8000}", 5e-5),
        ("{vocab_size: 8000, hidden_size: 5120, num_layers: 40, num_heads: 40}", 1e-4),
    ],
)
def test_a_command_line_reads_a_model_as_a_run_does(text, rate, tmp_path):
    path = tmp_path / "any.name"
    path.write_text(text, "utf-8")
    network = load_network(str(path))
    assert (network.model.hidden_size, network.model.num_layers) == (5120, 40)
    assert network.model.vocab_size == (8000 if "8000" in text else 40000)
    assert network.optim.learning_rate == rate


def test_a_model_for_a_command_line_that_is_wrong(tmp_path):
    with pytest.raises(
        ConfigError, match=r"'x\.yaml' is neither a file nor a shipped model; known are: tiny"
    ):
        load_network("x.yaml")
    path = tmp_path / "run.yaml"
    path.write_text("model: {base: tiny, hiden_size: 3}\noptim: {beta1: x}\nextra: 1", "utf-8")
    with pytest.raises(ConfigError) as error:
        load_network(str(path))
    assert [problem.partition(":")[0] for problem in error.value.problems] == [
        "model.hiden_size",
        "optim.beta1",
    ]


def test_what_only_some_devices_refuse():
    def problems(partitioned, **sections):
        config = build_train_config({**RUN, "model": "tiny", **sections})
        return [problem.partition(":")[0] for problem in unrunnable(config, partitioned)]

    held_out = {"data": {**RUN["data"], "validation": "v"}, "parallel": {"dp": 6}}
    assert problems(True, **held_out) == ["parallel.dp", "data.validation"]
    assert problems(False, **held_out) == [] == problems(True)
    local = {"run": {**RUN["run"], "checkpoint": {"storage": "local"}}}
    assert problems(False, **local) == ["run.checkpoint.storage"] and problems(True, **local) == []


def test_plan_keys_without_effect_are_named():
    plan = {"dp": 2, "recompute": "full", "optimizer_parallel": "level1", "micro_batches": 4}
    config = build_train_config({**RUN, "model": "tiny", "parallel": plan})
    assert unused(config, partitioned=False) == ["parallel.optimizer_parallel", "parallel.recompute"]
    assert unused(config, partitioned=True) == []
    shape = {"hidden_size": 192, "num_heads": 4, "ffn_size": 768, "seq_length": 128}
    table = {"model": "m", "block": shape, "devices": 2, "batch_size": 1, "axes": {"tp0": 2}, "cells": {}}
    split = {"tp": 2, "table": table, "vocab_parallel": False, "layers_per_stage": [4]}
    config = build_train_config({**RUN, "model": "tiny", "parallel": split})
    assert unused(config, partitioned=False) == [
        "parallel.layers_per_stage", "parallel.vocab_parallel", "parallel.table"
    ]  # fmt: skip
    assert unused(config, partitioned=True) == []


def test_a_key_outside_its_section_is_found():
    with pytest.raises(ConfigError) as error:
        build_train_config({**RUN, "model": "tiny", "learning_rate": 3e-4, "keep_last": 3})
    assert "learning_rate: unknown key; did you mean 'optim.learning_rate'?" in str(error.value)
    assert "did you mean 'run.checkpoint.keep_last'?" in str(error.value)


def test_overrides_reach_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: tiny\ndata: {train: {a: {records: x}}}\nrun: {output: o, steps: 3}\n", "utf-8")
    config = load_train_config(str(path), ["run.steps=5", "model.base=350m", "optim.learning_rate=2e-4"])
    assert (config.run.steps, config.model.num_layers, config.optim.learning_rate) == (5, 24, 2e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epsilon": 1e-46}, r"epsilon: 1e-46 is beyond what .* must lie in \[1e-30, 1e\+30\]"),
        ({"learning_rate": 1e39}, "learning_rate: 1e\\+39 is beyond"),
        ({"clip_norm": 1e-60}, "clip_norm: 1e-60 is beyond"),
        ({"beta2": 0.99999999}, "beta2: 0.99999999 is 1 in float32, so the moment would never change"),
    ],
)
def test_a_recipe_that_float32_cannot_hold_is_refused(values, message):
    """The first one made NaN of every weight without a gradient: 0 / (0 + 0)."""
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**values)


def test_a_run_counts_its_samples_in_64_bits():
    run = {"output": "o", "batch_size": 8}
    build_train_config({**RUN, "model": "tiny", "run": run | {"steps": 2**60 - 1}})
    with pytest.raises(ConfigError, match="run.steps: these would read 9,223,372,036,854,775,808 samples"):
        build_train_config({**RUN, "model": "tiny", "run": run | {"steps": 2**60}})
