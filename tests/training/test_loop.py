"""A run keeps its place: killed, stopped or damaged, it goes on bit for bit, and says what it does."""

from __future__ import annotations

import copy
import dataclasses
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.native import durable
from pangu_alpha.checkpoint.native.format import read_checkpoint, seal_folder, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import checksum
from pangu_alpha.cli.train import main
from pangu_alpha.training import engine
from pangu_alpha.training.reporting.report import read_metrics

TRAIN = Path(__file__).parents[2] / "src" / "train.py"


def start(config, *overrides):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TRAIN), "--config", config, *overrides]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def wait_for_step(process, metrics, step):
    deadline = time.monotonic() + 300
    while not (metrics.exists() and read_metrics(metrics)[-1:] and read_metrics(metrics)[-1]["step"] >= step):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.05)


def state_of(run, step=20):
    checkpoint = read_checkpoint(run / "checkpoints" / f"step_{step:08d}")
    arrays = {name: a for stem in ("model", "optimizer") for name, a in checkpoint.load(stem).items()}
    return checkpoint.manifest, arrays


def curve(run):
    """What was logged, but for times."""
    timed = ("tokens_per_s", "mfu")
    return [
        {k: v for k, v in entry.items() if k not in timed} for entry in read_metrics(run / "metrics.jsonl")
    ]


@pytest.fixture
def small(settings):
    """One layer and one micro-batch, where only files and steps matter: they are compiled sooner."""
    settings["model"]["num_layers"] = 1
    settings["parallel"] = {"micro_batches": 1}
    return settings


@pytest.fixture
def unmeasured(small):
    """That without validation, which has a graph of its own."""
    small["data"] = small["data"] | {"validation": None}
    return small


@pytest.fixture
def uninterrupted(cpu, settings, config_file, tmp_path):
    """20 steps without a break, in this process."""
    settings = copy.deepcopy(settings)
    settings["run"]["output"] = str(tmp_path / "whole")
    assert main(["--config", config_file(settings, "whole.yaml")]) == 0
    return tmp_path / "whole"


def assert_same_run(one, other):
    (manifest, arrays), (expected, originals) = state_of(one), state_of(other)
    assert (manifest.step, manifest.samples, manifest.state) == (20, 160, expected.state)
    assert arrays.keys() == originals.keys() and len(arrays) == 3 * 53
    for name, array in arrays.items():
        np.testing.assert_array_equal(array.view(np.uint32), originals[name].view(np.uint32), err_msg=name)
        assert np.any(array), name
    assert curve(one) == curve(other)
    assert [entry["step"] for entry in curve(one) if "loss" in entry] == list(range(1, 21))


def test_kill_and_resume_is_bit_for_bit(uninterrupted, settings, config_file, tmp_path):
    config = config_file(settings)
    process = start(config)
    wait_for_step(process, tmp_path / "run" / "metrics.jsonl", 13)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["--config", config]) == 0
    assert_same_run(tmp_path / "run", uninterrupted)
    assert (tmp_path / "run" / "loss.png").stat().st_size > 10_000
    entries = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert {"loss/one", "loss/two", "grad_norm", "loss_scale", "lr", "mfu"} <= entries[5].keys()
    losses = [entry["validation_loss"] for entry in entries if "validation_loss" in entry]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_only_a_run_that_loads_nothing_draws_initial_values(
    cpu, unmeasured, config_file, tmp_path, monkeypatch
):
    drawn = []

    def initial_values(spec, *arguments):
        drawn.append(spec.name)
        return draw(spec, *arguments)

    draw = engine.initial_values
    monkeypatch.setattr(engine, "initial_values", initial_values)
    unmeasured["run"] |= {"steps": 1, "checkpoint": {"every": 1}}
    config = config_file(unmeasured)
    assert main(["--config", config]) == 0
    assert len(drawn) == len(set(drawn)) == 21
    drawn.clear()
    assert main(["--config", config, "run.steps=2"]) == 0
    weights = tmp_path / "run" / "checkpoints" / "step_00000002"
    assert main(["--config", config, "--initial", str(weights), f"run.output={tmp_path / 'new'}"]) == 0
    assert drawn == []


@pytest.mark.slow
def test_sigterm_saves_and_stops(small, config_file, tmp_path):
    small["run"] |= {"steps": 100000, "checkpoint": {"every": 100000}, "evaluate_every": 100000}
    process = start(config_file(small))
    wait_for_step(process, tmp_path / "run" / "metrics.jsonl", 3)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    step = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"]
    manifest, _ = state_of(tmp_path / "run", step)
    assert manifest.samples == 4 * step and f"saved at step {step} and stopped" in output


def test_a_run_that_is_refused_leaves_no_folder(cpu, settings, config_file, tmp_path):
    words = ["--config", config_file(settings), "--resume", str(tmp_path / "nowhere")]
    for output in (tmp_path / "run", tmp_path / "new" / "deep" / "run"):
        with pytest.raises(ValueError, match="no such folder"):
            main([*words, f"run.output={output}"])
    assert not (tmp_path / "run").exists() and not (tmp_path / "new").exists()


def test_a_run_inside_a_folder_whose_name_is_not_utf8_goes_on(
    cpu, unmeasured, config_file, tmp_path, monkeypatch
):
    """The configuration names no such path, which it refuses; the folder it is started in may have one."""
    place = tmp_path / os.fsdecode("模型".encode("gbk"))
    place.mkdir()
    monkeypatch.chdir(place)
    unmeasured["run"] |= {"output": "run", "steps": 2, "checkpoint": {"every": 2}, "initial": None}
    config, first = config_file(unmeasured), "run"
    assert main(["--config", config]) == 0
    assert main(["--config", config, "run.steps=4"]) == 0
    assert state_of(Path(first), 4)[0].config["run"]["output"] == first
    assert [path.name for path in Path(first).glob("config*")] == ["config.yaml"]
    words = ["--config", config, "run.output=" + str(tmp_path / "next"), "--initial", first]
    assert main(words) == 0 and main([*words, "run.steps=4"]) == 0
    assert [entry["step"] for entry in curve(tmp_path / "next") if "loss" in entry] == [1, 2, 3, 4]


def test_a_restart_before_the_first_save_goes_on_from_what_was_asked_for(
    cpu, unmeasured, config_file, tmp_path
):
    unmeasured["run"] |= {"steps": 2, "checkpoint": {"every": 2}}
    config, first = config_file(unmeasured), str(tmp_path / "run" / "checkpoints" / "step_00000002")
    assert main(["--config", config]) == 0
    words = ["--config", config, f"run.output={tmp_path / 'next'}", f"run.resume={first}", "--restarted"]
    assert main([*words, "run.steps=4"]) == 0
    assert [entry["step"] for entry in curve(tmp_path / "next") if "loss" in entry] == [3, 4]
    assert main([*words, "run.steps=5"]) == 0  # the run's own by now
    assert [entry["step"] for entry in curve(tmp_path / "next") if "loss" in entry] == [3, 4, 5]
    words = ["--config", config, f"run.output={tmp_path / 'never'}", "run.resume=never", "--restarted"]
    assert main(words) == 0 and main([*words, "run.steps=3"]) == 0


def test_what_a_user_put_into_the_folder_of_a_run_is_not_lost(cpu, unmeasured, config_file, tmp_path, caplog):
    run, mine = tmp_path / "run", tmp_path / "mine"
    run.mkdir()
    mine.mkdir()
    unmeasured["run"] |= {"steps": 1}
    config = run / "config.yaml"
    config.write_text("# years of thought\n" + Path(config_file(unmeasured)).read_text())
    written = config.read_bytes()
    (mine / "vocab.model").write_text("of other records")
    (run / "vocab.model").symlink_to(mine / "vocab.model")
    assert main(["--config", str(config)]) == 0
    assert (mine / "vocab.model").read_text() == "of other records"
    assert (run / "vocab.model").read_bytes() == Path(unmeasured["data"]["vocabulary"]).read_bytes()
    assert (run / "config.yaml.own").read_bytes() == written
    assert "config.yaml: written by hand; it is config.yaml.own now" in caplog.text
    assert main(["--config", str(config), "run.steps=2"]) == 0  # it is the run's own by now
    assert sorted(path.name for path in run.glob("config*")) == ["config.yaml", "config.yaml.own"]

    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "config.yaml").symlink_to(run / "config.yaml.own")
    assert main(["--config", str(config), f"run.output={linked}"]) == 0
    assert (run / "config.yaml.own").read_bytes() == written
    assert not (linked / "config.yaml").is_symlink()


def test_resume_policies(cpu, settings, config_file, tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO)
    settings["run"] |= {"steps": 4, "checkpoint": {"every": 2}, "resume": "never"}
    settings["model"]["num_layers"] = 1
    settings["parallel"] = {"micro_batches": 1, "recompute": "full"}
    config = config_file(settings)
    assert main(["--config", config]) == 0
    assert "parallel.recompute: without effect" in caplog.text
    with pytest.raises(ValueError, match="resume is 'never'"):
        main(["--config", config])

    newest = tmp_path / "run" / "checkpoints" / "step_00000004"
    damaged = newest / "model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match="model.safetensors"):
        main(["--config", config, "--resume", str(newest)])
    with pytest.raises(ValueError, match="no such folder"):
        main(["--config", config, "--resume", str(tmp_path / "nowhere")])

    # nothing is left to do, and no weights are needed to begin with: both are said
    assert main(["--config", config, "--resume", "auto", "run.steps=2", "--initial", "nowhere"]) == 0
    assert "run: done, step 2 of 2; to go on, raise run.steps" in capsys.readouterr().out
    assert "nowhere: not used: the run goes on from its own step 2" in caplog.text
    assert "run.initial was" not in caplog.text

    # auto passes over the damaged one; with another batch size it keeps the place, in samples
    assert main(["--config", config, "--resume", "auto", "run.steps=5", "run.batch_size=2"]) == 0
    assert "step_00000004" in caplog.text
    manifest, _ = state_of(tmp_path / "run", 5)
    assert manifest.samples == 2 * 4 + 3 * 2
    samples = [entry["samples"] for entry in curve(tmp_path / "run") if "loss" in entry]
    assert samples == [4, 8, 10, 12, 14]

    # a shorter context is refused for what it is, before the records are asked to be of that length
    why = "its tables of positions and queries have that many rows, and are neither cut nor extended"
    for key, value, old, reason in (
        ("seq_length", 8, 16, why),
        ("seq_length", 32, 16, why),
        ("vocab_size", 64, 60, "its table of tokens has a row for each of its ids"),
        ("num_layers", 2, 1, "it has the tensors of that many layers"),
        ("hidden_size", 64, 32, "its tensors have that many columns"),
    ):
        said = f"model.{key} is {old} there, {value} in this run: {reason}; set model.{key}={old}"
        for how in ("--resume", "--initial"):
            words = [how, str(newest.parent / "step_00000005"), f"model.{key}={value}"]
            with pytest.raises(ValueError, match=f"{said}$"):
                main(["--config", config, *words, f"run.output={tmp_path / 'new'}"])


def test_any_form_of_checkpoint_can_be_begun_from(cpu, unmeasured, config_file, tmp_path, caplog):
    """One run of two steps, kept whole, as slices of a plan, and as weights alone."""
    caplog.set_level(logging.INFO)
    unmeasured["run"] |= {"steps": 2, "checkpoint": {"every": 2}}
    config = config_file(unmeasured)
    assert main(["--config", config]) == 0
    manifest, arrays = state_of(tmp_path / "run", 2)
    sliced = tmp_path / "other" / "step_00000002"
    halves = {**manifest.config, "parallel": {**manifest.config["parallel"], "dp": 2}}
    for rank in (0, 1):  # halves of all that has an even number of rows
        mine = {name: array for name, array in arrays.items() if rank == 0 or len(array) % 2 == 0}
        cut = {n: np.split(a, 2)[rank] if len(a) % 2 == 0 else a for n, a in mine.items()}
        start = {n: [rank * len(cut[n]), *[0] * (a.ndim - 1)] for n, a in mine.items()}
        slices, groups = {"model": {}, "optimizer": {}}, {"model": {}, "optimizer": {}}
        for name, array in mine.items():
            stem = "optimizer" if name.startswith("adam") else "model"
            slices[stem][name] = {"start": start[name], "shape": list(array.shape)}
            groups[stem][name] = cut[name]
        part = dataclasses.replace(manifest, kind="part", slices=slices, attempt="x")
        write_checkpoint(sliced / f"rank_{rank:05d}", groups, part)
    parts = {p.name: checksum((p / "manifest.json").read_bytes()) for p in sliced.iterdir()}
    seal_folder(sliced, dataclasses.replace(manifest, kind="slices", config=halves, files={}, parts=parts))
    weights = {name: array for name, array in arrays.items() if not name.startswith("adam")}
    write_checkpoint(tmp_path / "weights", {"model": weights}, dataclasses.replace(manifest, kind="weights"))

    # slices: the run goes on as from the whole, the place kept in samples under another batch size
    assert main(["--config", config, "run.steps=3", "run.batch_size=2"]) == 0
    words = ["run.steps=3", "run.batch_size=2", f"run.output={tmp_path / 'sliced'}"]
    assert main(["--config", config, "--resume", str(sliced), *words]) == 0
    (one, expected), (two, found) = state_of(tmp_path / "run", 3), state_of(tmp_path / "sliced", 3)
    assert one.samples == two.samples == 2 * 4 + 2 and one.state == two.state
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)

    # weights alone: no resume, but a new run
    with pytest.raises(ValueError, match=r"no optimizer state.*run.initial=.*weights"):
        main(["--config", config, "--resume", str(tmp_path / "weights"), *words[:2], f"{words[2]}-no"])
    words = [f"run.output={tmp_path / 'tuned'}", "run.steps=1"]
    assert main(["--config", config, "--initial", str(tmp_path / "weights"), *words]) == 0
    manifest, tuned = state_of(tmp_path / "tuned", 1)
    assert (manifest.step, manifest.samples) == (1, 4)
    for name, array in weights.items():  # the first step of the warm-up has a learning rate of 0
        np.testing.assert_array_equal(tuned[name], array, err_msg=name)
    with pytest.raises(ValueError, match=r"model.num_heads is 4 there, 8 in this run.*model.num_heads=4"):
        main(["--config", config, "--resume", str(sliced), "model.num_heads=8", "run.output=/nowhere"])


def test_a_changed_mixture_goes_on_where_each_source_is(cpu, unmeasured, config_file, tmp_path, caplog):
    """8 samples of 3 : 1, then 1 : 1; from a checkpoint of today and from one that says only its weights."""
    unmeasured["run"] |= {"steps": 1, "batch_size": 8}
    config = config_file(unmeasured)
    assert main(["--config", config]) == 0
    manifest, _ = state_of(tmp_path / "run", 1)
    assert [each["draws"] for each in manifest.state["mixture"]["sources"]] == [0, 0]
    older = {key: value for key, value in manifest.state.items() if key != "mixture"}
    first = tmp_path / "run" / "checkpoints" / "step_00000001"
    arrays = {stem: dict(read_checkpoint(first).load(stem)) for stem in ("model", "optimizer")}
    write_checkpoint(tmp_path / "older", arrays, dataclasses.replace(manifest, state=older))
    words = ["run.steps=2", "data.train.one.weight=1", "run.seed=2"]
    assert main(["--config", config, *words]) == 0
    assert (
        "run.seed was 1, is 2 now: the epoch that each source is in goes on in another order" in caplog.text
    )
    words.append(f"run.output={tmp_path / 'from_older'}")
    assert main(["--config", config, "--resume", str(tmp_path / "older"), *words]) == 0
    one, other = (state_of(tmp_path / name, 2)[0] for name in ("run", "from_older"))
    assert one.state["mixture"]["since"] == 8
    assert [each["draws"] for each in one.state["mixture"]["sources"]] == [6, 2]
    assert one.state == other.state
    broken = dataclasses.replace(manifest, state=manifest.state | {"mixture": {"since": 8, "sources": []}})
    write_checkpoint(tmp_path / "broken", arrays, broken)
    with pytest.raises(ValueError, match="broken: what it says of its data does not add up.*state.mixture"):
        main(["--config", config, "--resume", str(tmp_path / "broken"), f"run.output={tmp_path / 'no'}"])


@pytest.mark.parametrize("background", ["true", "false"])
def test_a_failed_save_ends_the_run(cpu, small, config_file, tmp_path, background, monkeypatch):
    small["run"] |= {"steps": 50, "checkpoint": {"every": 2}, "evaluate_every": 100}
    fsync = os.fsync

    def full(descriptor):
        if "checkpoints" in os.readlink(f"/proc/self/fd/{descriptor}"):  # config.yaml is flushed, too
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(ValueError, match="step_00000002: not written: No space left on device"):
        main(["--config", config_file(small), f"run.checkpoint.background={background}"])
    assert not [*(tmp_path / "run" / "checkpoints").iterdir()]


def test_nan_stops_the_run_and_is_in_its_report(cpu, small, config_file, tmp_path, capsys):
    small["run"] |= {"guard": {"max_skipped": 3}}
    small["optim"] |= {"learning_rate": 1e30, "end_learning_rate": 1e30, "warmup_steps": 0}
    assert main(["--config", config_file(small)]) == 3
    assert "updates in a row were skipped" in capsys.readouterr().err
    entries = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [entry["applied"] for entry in entries][-3:] == [False, False, False]
    assert entries[-1]["skipped"] >= 3


def test_records_and_vocabulary_must_fit(settings, config_file, tmp_path):
    for override, message in (
        ("model.vocab_size=50", "vocab"),
        ("model.seq_length=32", "seq_length"),
        ("data.validation=/nowhere", "validation"),
    ):
        with pytest.raises(ValueError, match=message):
            main(["--config", config_file(settings), override])
    other = tmp_path / "other.model"
    from pangu_alpha.text.vocabulary import train_vocabulary

    train_vocabulary(["大江东去浪淘尽千古风流人物" * 5, "故垒西边人道是三国周郎赤壁"], str(other), 36)
    with pytest.raises(ValueError, match="tokenizer"):
        main(["--config", config_file(settings), f"data.vocabulary={other}"])
