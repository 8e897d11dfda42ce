"""The vocabulary of training goes along with every merge and export, or the user is told that it does not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.native.format import Manifest, read_checkpoint, write_checkpoint
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.vocabulary import find_vocabulary
from pangu_alpha.cli import checkpoint, merge_checkpoint
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes

MODEL = ModelConfig(vocab_size=512, hidden_size=512, num_layers=2, num_heads=8, seq_length=8)
WORDS = b"a vocabulary " * 1000
DIGEST = hashlib.sha256(WORDS).hexdigest()


def make_run(path: Path, model: ModelConfig, tokenizer=DIGEST, words: bytes | None = WORDS) -> Path:
    """A run's output folder with its vocabulary."""
    arrays = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(model).items()}
    manifest = Manifest(3, 30, {"model": to_mapping(model)}, tokenizer)
    write_checkpoint(path / "checkpoints" / "step_00000003", {"model": arrays}, manifest)
    if words is not None:
        (path / "vocab.model").write_bytes(words)
    return path


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", ModelConfig(50, 32, 2, 4, seq_length=16))


@pytest.mark.parametrize("plan", [[], ["--dp", "2", "--tp", "2"]])
def test_a_merge_takes_it_along(run, tmp_path, plan, capsys):
    merge_checkpoint.main([str(run), str(tmp_path / "deep" / "whole"), "--quiet", *plan])
    assert (tmp_path / "deep" / "whole" / "vocab.model").read_bytes() == WORDS
    assert f"vocab.model: copied from {run / 'vocab.model'}" in capsys.readouterr().out
    read_checkpoint(tmp_path / "deep" / "whole")  # every byte of it is verified, and it is as it was
    merge_checkpoint.main([str(tmp_path / "deep" / "whole"), str(tmp_path / "again"), "--quiet"])
    assert (tmp_path / "again" / "vocab.model").read_bytes() == WORDS


@pytest.mark.parametrize("form", ["huggingface", "mindspore", "unified"])
def test_exports_of_folders_take_it_along(run, tmp_path, form, capsys):
    checkpoint.main(["export", str(run), str(tmp_path / "deep" / "made"), "--to", form, "--quiet"])
    assert (tmp_path / "deep" / "made" / "vocab.model").read_bytes() == WORDS
    assert "vocab.model: copied from" in capsys.readouterr().out
    options = ["--model", str(run.parent / "model.yaml")]
    (run.parent / "model.yaml").write_text(json.dumps(read_checkpoint(find(run)).manifest.config["model"]))
    assert checkpoint.main(["diff", str(run), str(tmp_path / "deep" / "made"), "--quiet", *options]) == 0
    assert open_source(find(run)).manifest.tokenizer == DIGEST


def find(run):
    return run / "checkpoints" / "step_00000003"


def test_the_release_takes_it_along(tmp_path):
    run = make_run(tmp_path / "run", MODEL)
    checkpoint.main(["export", str(run), str(tmp_path / "deep" / "made"), "--to", "released", "--quiet"])
    assert (tmp_path / "deep" / "made" / "vocab.model").read_bytes() == WORDS
    assert len(list((tmp_path / "deep" / "made").iterdir())) == 512 + 3 + 1 + 1


@pytest.mark.parametrize(("form", "suffix"), [("megatron", ".safetensors"), ("ckpt", ".ckpt")])
def test_a_single_file_has_no_place_for_it(run, tmp_path, form, suffix, capsys):
    checkpoint.main(["export", str(run), str(tmp_path / f"made{suffix}"), "--to", form, "--quiet"])
    said = capsys.readouterr().out
    assert f"vocab.model: has no place in one file; put a copy of {run / 'vocab.model'} beside it" in said


def test_another_one_is_not_taken(run, tmp_path, capsys):
    (run / "vocab.model").write_bytes(b"another")
    merge_checkpoint.main([str(run), str(tmp_path / "deep" / "whole"), "--quiet"])
    assert not (tmp_path / "deep" / "whole" / "vocab.model").exists()
    said = capsys.readouterr().out
    assert f"not copied: {run / 'vocab.model'} is another one (digest " in said and DIGEST[:12] in said
    (run / "checkpoints" / "vocab.model").write_bytes(b"another")
    (find(run) / "vocab.model").write_bytes(WORDS)  # the right one lies nearer
    assert find_vocabulary(open_source(run)).path == find(run) / "vocab.model"


def test_that_there_is_none_is_said(tmp_path, capsys):
    run = make_run(tmp_path / "a" / "b" / "run", ModelConfig(50, 32, 2, 4, seq_length=16), words=None)
    merge_checkpoint.main([str(run), str(tmp_path / "whole"), "--quiet"])
    said = capsys.readouterr().out
    assert "vocab.model: not copied: none in " in said and "--vocabulary FILE" in said


def test_one_of_an_unknown_checkpoint_is_copied_and_said(tmp_path):
    run = make_run(tmp_path / "run", ModelConfig(50, 32, 2, 4, seq_length=16), tokenizer=None)
    assert find_vocabulary(open_source(run)).said.endswith("the checkpoint does not say which is its own")


def test_another_vocabulary_is_other_work(run, tmp_path, monkeypatch):
    """Interrupted, then run again with the right file put there: the old one is not published."""
    (run / "vocab.model").write_bytes(b"another")
    from pangu_alpha.checkpoint.moving.resumable import ResumableFolder

    def stop(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ResumableFolder, "publish", stop)
        with pytest.raises(KeyboardInterrupt):
            merge_checkpoint.main([str(run), str(tmp_path / "deep" / "whole"), "--quiet"])
    (run / "vocab.model").write_bytes(WORDS)
    merge_checkpoint.main([str(run), str(tmp_path / "deep" / "whole"), "--quiet"])
    assert (tmp_path / "deep" / "whole" / "vocab.model").read_bytes() == WORDS


def test_an_export_refuses_an_end_of_document_that_is_no_text(run, tmp_path):
    old = read_checkpoint(find(run))
    manifest = dataclasses.replace(old.manifest, state={"end_of_document": 9})
    write_checkpoint(run / "odd", {"model": dict(old.load("model"))}, manifest)
    with pytest.raises(ValueError, match="state.end_of_document is 9, not the name of a piece"):
        checkpoint.main(
            ["export", str(run / "odd"), str(tmp_path / "made"), "--to", "huggingface", "--quiet"]
        )
