"""A server that cannot start says so in a sentence, with exit code 2, and leaves nothing running behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.cli import run_main, serve
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.text.tokenizer import PanguTokenizer
from tests.serving.running import ROOT, digest


def save(folder, vocabulary, **sizes):
    """A checkpoint of zeros, and its vocabulary."""
    tokenizer = PanguTokenizer(vocabulary)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, num_layers=1, num_heads=1, **sizes)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    manifest = Manifest(1, 0, {"model": to_mapping(config)}, tokenizer.digest)
    CheckpointStore(folder / "checkpoints", keep_last=1).save({"model": arrays}, manifest)
    (folder / "vocab.model").write_bytes(Path(vocabulary).read_bytes())
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, vocabulary):
    return save(tmp_path_factory.mktemp("run"), vocabulary, seq_length=128)


@pytest.fixture
def refused(monkeypatch, capsys):
    """refused(words) starts a server in this process, which must not come to be; what it says."""

    def start(*words):
        before = set(psutil.Process().children())  # of other tests
        monkeypatch.setattr(sys, "argv", ["serve.py", "--port", "0", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run_main(serve.main)
        assert end.value.code == 2 and set(psutil.Process().children()) <= before
        return capsys.readouterr().err

    return start


def test_a_port_in_use(refused, checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused("--checkpoint", checkpoint, "--port", port)
    assert f"error: port {port} of 127.0.0.1 cannot be opened: address already in use; end the" in text


def test_a_checkpoint_that_is_not_there(refused, tmp_path):
    assert f"{tmp_path}/none: there is no such file or folder" in refused("--checkpoint", tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "serve.host: 0.0.0.0 can be reached by others, and no keys are set"),
        (["--host", "::"], "host: :: can be reached by others, and no keys are set; give key_file"),
        (["--slots", "0"], "--slots: '0' is not a whole number of at least 1"),
        (["serve.slotz=2"], "serve.slotz: unknown key; did you mean 'slots'"),
        (["--unknown-fields", "drop"], "--unknown-fields"),
        (["--config", "none.yaml"], "none.yaml: cannot be read (No such file or directory)"),
        (["--scenarios", "nowhere"], "scenarios: nowhere: there is no .yaml file in it"),
        (["--key-file", "none"], "none: there is no such file"),
    ],
)
def test_words_that_are_no_server(refused, checkpoint, words, said):
    assert said in refused("--checkpoint", checkpoint, *words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("serve: {slots: 2", "serve.yaml"),
        ("- serve", "serve.yaml"),
        ("serve: {slot: 2}", "serve.slot: unknown key; did you mean 'slots'"),
        ("server: {slots: 2}", "server: unknown key; did you mean 'serve'"),
        ("serve: {slots: many}", "serve.slots: expected a whole number, found 'many'"),
    ],
)
def test_a_bad_file(refused, checkpoint, tmp_path, text, said):
    (tmp_path / "serve.yaml").write_text(text, "utf-8")
    assert said in refused("--checkpoint", checkpoint, "--config", tmp_path / "serve.yaml")


def test_keys_that_others_can_read(refused, checkpoint, tmp_path):
    (tmp_path / "keys").write_text(f"anna:{digest('x')}\n", "utf-8")
    (tmp_path / "keys").chmod(0o640)
    text = refused("--checkpoint", checkpoint, "--key-file", tmp_path / "keys")
    assert f"can be read or written by others (mode 0640); run chmod 600 {tmp_path}/keys" in text


def test_keys_for_a_scenario_that_does_not_exist(refused, checkpoint, tmp_path):
    (tmp_path / "keys").write_text(f"anna:{digest('x')}:refrigirator\n", "utf-8")
    (tmp_path / "keys").chmod(0o600)
    text = refused("--checkpoint", checkpoint, "--key-file", tmp_path / "keys")
    assert "line 1: anna: no scenario is called 'refrigirator'; did you mean 'refrigerator'" in text


def test_a_scenario_of_an_unknown_task(refused, checkpoint, tmp_path):
    (tmp_path / "kettle.yaml").write_text("task: boil\ntitle: {en: K, zh: K}\ndescription: {en: K, zh: K}\n")
    text = refused("--checkpoint", checkpoint, "--scenarios", tmp_path)
    assert "kettle.yaml: task: there is none called 'boil'" in text


@pytest.mark.slow
def test_a_cache_that_does_not_fit_is_refused_with_the_numbers_and_no_engine_stays(tmp_path, vocabulary):
    """The engine's process finds it out, so this starts one, of a network with two million positions."""
    length = 1 << 21
    folder = save(tmp_path, vocabulary, seq_length=length)
    mark = uuid.uuid4().hex
    words = ["--checkpoint", folder, "--port", "0", "--device", "CPU", "--slots", "256", "--context", length]
    done = subprocess.run(
        [sys.executable, str(ROOT / "src/serve.py"), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PANGU_TEST_MARK": mark},
    )
    each = 2 * (length + 1) * 8 * 4
    assert done.returncode == 2, done.stderr
    assert (
        f"256 slots and 2 pinned rows need {258 * each / 1e9:.2f} GB of cache ({each / 1e6:,.0f} MB each)"
        in (done.stderr)
    )
    assert "of memory are free; give fewer slots or a smaller context" in done.stderr
    assert "Traceback" not in done.stderr and not [*marked(mark)]


def marked(mark):
    """Processes with a mark in their environment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PANGU_TEST_MARK") == mark:
                yield process
