"""A network of another kind trains by the same loop, keeps its place, and its checkpoints are resharded."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.native.format import Manifest, read_checkpoint, write_checkpoint
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.cli import checkpoint, merge_checkpoint, train
from pangu_alpha.config.run import build_train_config
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.inference.load import load_for_inference
from pangu_alpha.model.initialization import initial_values
from pangu_alpha.network.parameters import parameter_shapes, parameter_table, register_rows
from pangu_alpha.training.reporting.report import read_metrics

TOY = Path(__file__).with_name("toy.py")
COLUMNS = 6
TRAINED, FROZEN = {"hearing.weight", "hearing.bias"}, {"seeing.weight", "seeing.bias"}


@pytest.fixture(scope="module")
def toy():
    spec = importlib.util.spec_from_file_location("toy", TOY)
    module = sys.modules["toy"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register()
    return module


@pytest.fixture(scope="module")
def records(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for seed, (name, count) in enumerate({"one": 30, "two": 20, "held_out": 11}.items()):
        toy.write_records(folder / name, seed, count, COLUMNS)
    return folder


@pytest.fixture
def values(cpu, records, tmp_path):
    return {
        "model": {"family": "toy", "columns": COLUMNS},
        "data": {
            "train": {
                "one": {"records": str(records / "one"), "weight": 3.0},
                "two": {"records": str(records / "two")},
            },
            "validation": str(records / "held_out"),
        },
        "optim": {"learning_rate": 1e-2, "end_learning_rate": 1e-3, "warmup_steps": 5, "decay_steps": 20},
        "run": {
            "output": str(tmp_path / "run"),
            "steps": 20,
            "batch_size": 4,
            "device": "CPU",
            "evaluate_every": 5,
            "tensorboard": False,
            "peak_tflops": 0.1,
            "checkpoint": {"every": 10},
        },
        "parallel": {"micro_batches": 2},
    }


@pytest.fixture
def config(values, tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(json.dumps(values), "utf-8")
    return str(path)


@pytest.fixture
def port():
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def state_of(run, step=20):
    """What a checkpoint says, and its tensors by stem and name."""
    source = open_source(run / "checkpoints" / f"step_{step:08d}")
    return source.manifest, tensors_of(source)


def tensors_of(source):
    return {
        (stem, name): read_box(stored, whole(stored.shape), np.float32, True, name)
        for stem, group in source.tensors.items()
        for name, stored in group.items()
    }


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array.view(np.uint32), other[name].view(np.uint32), err_msg=str(name))


def curve(run):
    timed = ("pairs_per_s", "mfu")
    return [{k: v for k, v in each.items() if k not in timed} for each in read_metrics(run / "metrics.jsonl")]


def test_twenty_steps_are_ten_a_kill_and_ten_bit_for_bit(config, values, tmp_path, capsys):
    whole_run, run = tmp_path / "whole", tmp_path / "run"
    assert train.main(["--config", config, f"run.output={whole_run}"]) == 0
    said = capsys.readouterr().out
    assert "pairs/s" in said and "validation pairs 11" in said and "tokens" not in said

    words = ["run.checkpoint.every=1000", "run.steps=100000"]  # it is killed long before it is done
    first = ["--config", config, "run.steps=10", "optim.decay_steps=20"]
    assert train.main(first) == 0
    process = subprocess.Popen([sys.executable, str(TOY), "train", "--config", config, *words],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    deadline = time.monotonic() + 300
    while curve(run)[-1]["step"] < 13:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert train.main(["--config", config]) == 0

    (manifest, tensors), (expected, originals) = state_of(run), state_of(whole_run)
    assert_equal(tensors, originals)
    moments = {f"{moment}{name}" for moment in ("adam_m.", "adam_v.") for name in TRAINED}
    assert {name for stem, name in tensors if stem == "model"} == TRAINED | FROZEN
    assert {name for stem, name in tensors if stem == "optimizer"} == moments
    assert manifest.state == expected.state and manifest.tokenizer is None
    assert manifest.state["frozen"] == sorted(FROZEN)
    assert curve(run) == curve(whole_run)

    losses = [each["loss"] for each in curve(run) if "loss" in each]
    assert manifest.state["hooks"]["mean"]["steps"] == len(losses) == 20
    assert manifest.state["hooks"]["mean"]["mean"] == pytest.approx(np.mean(losses), rel=1e-12)
    measured = [each["validation_loss"] for each in curve(run) if "validation_loss" in each]
    assert len(measured) == 4 and measured[-1] < measured[0]
    table = parameter_table(build_train_config(values).model)
    for name in FROZEN:
        np.testing.assert_array_equal(tensors["model", name], initial_values(table[name], 1))
    for name in TRAINED:
        assert np.abs(tensors["model", name] - initial_values(table[name], 1)).min() > 0, name


def test_a_checkpoint_is_resharded_and_back_and_goes_on(config, tmp_path, capsys):
    assert train.main(["--config", config, "run.steps=4"]) == 0
    manifest, tensors = state_of(tmp_path / "run", 4)
    cut, back = tmp_path / "cut", tmp_path / "back"
    plan = ["--tp", "2", "--dp", "2", "--optimizer-parallel", "level1", "--optimizer-threshold", "0"]
    assert merge_checkpoint.main([str(tmp_path / "run"), str(cut), *plan]) == 0
    assert len(list(cut.glob("rank_*"))) == 4
    slices = read_checkpoint(cut / "rank_00001").manifest.slices["model"]
    assert slices["hearing.weight"] == {"start": [4, 0], "shape": [8, COLUMNS]}
    assert_equal(tensors_of(open_source(cut)), tensors)
    assert merge_checkpoint.main([str(cut), str(back)]) == 0
    found = open_source(back)
    assert_equal(tensors_of(found), tensors)
    assert found.manifest.state == manifest.state
    assert found.manifest.config["model"] == manifest.config["model"]

    assert checkpoint.main(["inspect", str(cut)]) == 0
    said = capsys.readouterr().out
    assert "model      columns 6, width 8, family toy" in said and "parameters 112" in said
    with pytest.raises(ValueError, match="'toy': an export knows networks of the family 'pangu'"):
        checkpoint.main(["export", str(cut), str(tmp_path / "hf"), "--to", "huggingface"])
    with pytest.raises(ValueError, match="model.family: 'toy': generation knows networks of the family"):
        load_for_inference(cut)

    for name, source in (("from_run", tmp_path / "run" / "checkpoints" / "step_00000004"), ("from_cut", cut)):
        words = ["run.steps=6", f"run.output={tmp_path / name}", "--resume", str(source)]
        assert train.main(["--config", config, *words]) == 0
    (one, expected), (two, arrays) = (state_of(tmp_path / name, 6) for name in ("from_run", "from_cut"))
    assert_equal(arrays, expected)
    assert one.state == two.state and one.state["hooks"]["mean"]["steps"] == 6


def test_what_does_not_fit_is_refused_in_words(toy, config, values, settings, config_file, tmp_path):
    for change, said in (
        ({"family": "toi"}, "model.family: 'toi' is not known here; did you mean 'toy'"),
        ({"family": ["toy"]}, r"model.family: \['toy'\] is not known here"),
        ({"hidden_size": 3}, "model.hidden_size: unknown key"),
        ({"width": 0}, "model.width: 0 must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            build_train_config(values | {"model": values["model"] | change})
    assert build_train_config(settings | {"model": settings["model"] | {"family": "pangu"}}) == (
        build_train_config(settings)
    )
    with pytest.raises(ValueError, match="parallel.tp: 3 does not divide the width 8"):
        build_train_config(values | {"parallel": {"tp": 3}})
    assert train.main(["--config", config, "run.steps=1"]) == 0
    last = str(tmp_path / "run" / "checkpoints" / "step_00000001")
    with pytest.raises(ValueError, match="model.width is 8 there, 4 in this run: its towers have"):
        train.main(["--config", config, "--resume", last, "model.width=4"])
    tokens = config_file(settings, "tokens.yaml")
    with pytest.raises(ValueError, match="model.family is 'toy' there, 'pangu' in this run"):
        train.main(["--config", tokens, "--resume", last, f"run.output={tmp_path / 'tokens'}"])


def test_a_run_that_trains_other_parameters_does_not_go_on(config, tmp_path, monkeypatch):
    from pangu_alpha.config.model_families import FAMILIES
    from pangu_alpha.training import objectives

    assert train.main(["--config", config, "run.steps=1"]) == 0
    kind = objectives._MAKERS[FAMILIES["toy"]]
    monkeypatch.setattr(kind, "trained", property(lambda self: ("hearing.weight",)))
    with pytest.raises(ValueError, match="trained other parameters .hearing.bias is frozen in one of them"):
        train.main(["--config", config])
    words = ["--initial", str(tmp_path / "run"), f"run.output={tmp_path / 'new'}", "run.steps=1"]
    assert train.main(["--config", config, *words]) == 0
    assert state_of(tmp_path / "new", 1)[0].state["frozen"] == [
        "hearing.bias",
        "seeing.bias",
        "seeing.weight",
    ]


def test_a_checkpoint_of_another_program_is_of_pangu_alpha(config, tmp_path):
    model = load_model_config("tiny")
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(model).items()}
    manifest = Manifest(
        step=0, samples=0, config={"model": to_mapping(model)}, tokenizer=None, kind="weights"
    )
    write_checkpoint(tmp_path / "own", {"model": weights}, manifest)
    port = str(tmp_path / "port")
    assert checkpoint.main(["export", str(tmp_path / "own"), port, "--to", "huggingface"]) == 0
    with pytest.raises(ValueError, match="model.family: 'toy': the reader of this form of checkpoint knows"):
        train.main(["--config", config, "--initial", port])


@dataclasses.dataclass(frozen=True)
class EyeConfig:
    """The toy's seeing tower alone, as another family."""

    columns: int
    width: int = 8
    family: str = "eye"

    meaning: ClassVar = {"width": "its tower has that many rows"}


def test_a_new_run_begins_from_the_checkpoint_of_another_network(toy, config, tmp_path, monkeypatch):
    """As an adapter on a network that was trained without it: what it lacks has the seed's values."""
    from pangu_alpha.config.model_families import FAMILIES, register_family
    from pangu_alpha.training import objectives

    register_family("eye", EyeConfig)
    register_rows(EyeConfig, toy.ROWS[:2], {"W": "width", "C": "columns"})
    random = np.random.default_rng(7)
    eye = EyeConfig(COLUMNS)
    weights = {name: np.float32(random.random(shape)) for name, shape in parameter_shapes(eye).items()}
    manifest = Manifest(step=3, samples=9, config={"model": to_mapping(eye)}, tokenizer=None, kind="weights")
    write_checkpoint(tmp_path / "eye", {"model": weights}, manifest)
    words = ["--config", config, "--initial", str(tmp_path / "eye"), "run.steps=1"]
    with pytest.raises(ValueError, match="'eye' there, 'toy' in this run: they are different kinds"):
        train.main(words)
    kind = objectives._MAKERS[FAMILIES["toy"]]
    monkeypatch.setattr(kind, "initial_model", property(lambda self: EyeConfig(self.config.model.columns)))
    assert train.main([*words, "optim.learning_rate=1e-30", "optim.end_learning_rate=0"]) == 0
    (_, tensors), table = state_of(tmp_path / "run", 1), parameter_table(toy.ToyConfig(COLUMNS))
    for name in FROZEN | TRAINED:
        expected = weights[name] if name in weights else initial_values(table[name], 1)
        np.testing.assert_array_equal(tensors["model", name], expected, err_msg=name)
    assert weights.keys() == FROZEN
    assert train.main(["--config", config, "run.steps=2"]) == 0  # its own checkpoint is the whole network's


def test_a_hook_refuses_a_state_that_is_none_of_its_own(config, tmp_path, monkeypatch):
    assert train.main(["--config", config, "run.steps=1"]) == 0
    path = tmp_path / "run" / "checkpoints" / "step_00000001"
    saved = read_checkpoint(path)
    arrays = {stem: dict(saved.load(stem)) for stem in ("model", "optimizer")}
    for kept, said in (
        ({"mean": {"steps": 1}}, "state.hooks: mean: not a running mean"),
        ([1], "state.hooks: not a mapping"),
    ):
        broken = tmp_path / f"broken{len(said)}"
        state = {**saved.manifest.state, "hooks": kept}
        write_checkpoint(broken, arrays, dataclasses.replace(saved.manifest, state=state))
        with pytest.raises(ValueError, match=said):
            train.main(["--config", config, "--resume", str(broken), f"run.output={tmp_path / 'no'}"])


@pytest.mark.long  # three more processes
def test_two_workers_train_what_one_trains(config, tmp_path, port):
    assert train.main(["--config", config, "run.steps=5"]) == 0
    cluster = {"MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": port, "MS_WORKER_NUM": "2",
               "OMP_NUM_THREADS": "1", "GLOG_v": "3"}  # fmt: skip
    wait = [sys.executable, "-c", "from mindspore.communication import init; init()"]
    words = ["run.steps=5", "run.batch_size=2", "parallel.dp=2", f"run.output={tmp_path / 'two'}",
             "run.check_replicas_every=1"]  # fmt: skip
    work = [sys.executable, str(TOY), "train", "--config", config, *words]
    roles = [("MS_SCHED", -1), ("MS_WORKER", 0), ("MS_WORKER", 1)]
    processes = [
        subprocess.Popen(work if number >= 0 else wait,
                         env=os.environ | cluster | {"MS_ROLE": role, "MS_NODE_ID": str(max(number, 0))},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for role, number in roles
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=200)[0] for process in processes[1:]]
        assert [process.returncode for process in processes[1:]] == [0, 0], said
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert said[0].count("copies on several ranks are equal") == 5
    (_, found), (_, expected) = state_of(tmp_path / "two", 5), state_of(tmp_path / "run", 5)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-7, err_msg=str(name))
