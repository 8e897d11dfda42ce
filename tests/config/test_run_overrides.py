"""Overrides of a run, its paths, and its numbers."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import get_args, get_origin, get_type_hints

import pytest

from pangu_alpha.config.run import TrainConfig, build_train_config, load_train_config
from pangu_alpha.config.schema import ConfigError, merge, parse_overrides, to_mapping

RUN = {"data": {"train": {"a": {"records": "x"}}}, "run": {"output": "o", "steps": 3}}


def test_overrides_are_laid_one_by_one(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: tiny\ndata: {train: {a: {records: x}}}\nrun: {output: o, steps: 3}\n", "utf-8")

    def steps(*words, **more):
        return load_train_config(str(path), words, **more).run.steps

    assert steps("run.steps=5", "run.steps=6") == 6
    assert steps("run={steps: 5}", "run.steps=6") == 6
    assert steps("run.steps=6", "run={log_every: 2}") == 6
    assert steps("run.steps=6", run={"steps": 7}) == 7
    assert load_train_config(str(path), run={"resume": "a: b #1"}).run.resume == "a: b #1"
    for words in (["model.seq_length=64"], ["model=350m", "model.seq_length=64"]):
        model = load_train_config(str(path), words).model
        assert (model.seq_length, model.num_layers) == (64, 4 if len(words) == 1 else 24)
    with pytest.raises(ConfigError, match="run: 5 has no keys that an override could change"):
        steps("run=5", "run.steps=6")
    with pytest.raises(ConfigError, match="run.output: 'o' has no keys"):
        steps("run.output.x=6")


def test_the_paths_of_a_run(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    run = {"output": "~/o", "steps": 3, "resume": "~/r", "initial": "$HOME/i"}
    data = {"train": {"a": {"records": "~/x"}}, "validation": "~/v", "vocabulary": "${HOME}/w"}
    config = build_train_config({"model": "tiny", "data": data, "run": run})
    assert (config.run.output, config.run.resume) == ("/home/ann/o", "/home/ann/r")
    assert (config.run.initial, config.data.train["a"].records) == ("/home/ann/i", "/home/ann/x")
    assert (config.data.validation, config.data.vocabulary) == ("/home/ann/v", "/home/ann/w")
    assert build_train_config(to_mapping(config)) == config


def _number_keys(cls, where=()):
    """Keys of a dataclass and of those in it that are numbers with a point."""
    for name, hint in get_type_hints(cls).items():
        inner = get_args(hint)[1] if get_origin(hint) is dict else hint
        if is_dataclass(inner):
            yield from _number_keys(inner, (*where, name, *(("a",) if inner is not hint else ())))
        elif float in (hint, *get_args(hint)):
            yield (*where, name)


NUMBER_KEYS = list(_number_keys(TrainConfig))


def test_every_number_of_a_run_is_finite():
    assert len(NUMBER_KEYS) >= 14 and ("optim", "epsilon") in NUMBER_KEYS
    for keys in NUMBER_KEYS:
        for word in (".nan", ".inf", "-.inf"):
            changes = parse_overrides([f"{'.'.join(keys)}={word}"])
            with pytest.raises(ConfigError) as error:
                build_train_config(merge({**RUN, "model": {"base": "tiny"}}, changes))
            assert "finite number" in str(error.value), keys


@pytest.mark.parametrize("values", [None, 5, "text", [], [1]])
def test_a_run_that_is_no_mapping(values):
    with pytest.raises(ConfigError, match="TrainConfig: expected a mapping of keys"):
        build_train_config(values)
