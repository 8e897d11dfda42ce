"""Finding and loading a checkpoint: never another one than was meant, never random weights."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest


@pytest.fixture
def run(run_folder, tmp_path):
    """A copy of the run that a test may spoil."""
    return shutil.copytree(run_folder, tmp_path / "run")


@pytest.fixture(scope="module")
def load(cpu):
    """load_for_inference."""
    from pangu_alpha.inference.load import load_for_inference

    return load_for_inference


@pytest.mark.parametrize("inner", ["", "checkpoints", "checkpoints/step_00000020"])
def test_takes_the_newest_with_its_vocabulary(run_folder, load, inner):
    loaded = load(run_folder / inner)
    assert loaded.step == 20 and loaded.checkpoint.name == "step_00000020"
    assert loaded.tokenizer.vocab_file == run_folder / "vocab.model"
    assert loaded.end_of_document == loaded.tokenizer.eod_id


def test_weights_are_the_checkpoints(run_folder, load, build_model):
    ten = dict(load(run_folder / "checkpoints/step_00000010").model.parameters_and_names())
    for name, parameter in build_model(vocab_size=60, num_layers=2).parameters_and_names():
        np.testing.assert_array_equal(ten[name].asnumpy(), parameter.asnumpy() * 0.5)


def test_whole_sequences_and_single_tokens_get_their_own_operators(run_folder, load, monkeypatch):
    from pangu_alpha.model import operators
    from pangu_alpha.model.operators import cpu

    monkeypatch.setattr(operators, "library", lambda: None)  # the kernels serve both
    assert load(run_folder).model.operators.affine is cpu.DenseAffine
    whole = load(run_folder, decoding=False).model
    assert (whole.operators.affine, whole.operators.attention) == (cpu.Affine, cpu.AttentionCore)
    assert whole.config.dropout == 0.0  # or Ascend would not take flash attention


def test_a_damaged_newest_gives_way_and_says_so(run, load, caplog):
    (run / "checkpoints/step_00000020/COMPLETE").unlink()
    assert load(run).step == 10
    assert "step_00000020" in caplog.text
    with pytest.raises(ValueError, match="COMPLETE"):
        load(run / "checkpoints/step_00000020")


def test_a_path_without_a_checkpoint_is_an_error(tmp_path, load):
    with pytest.raises(ValueError, match="no such file or folder"):
        load(tmp_path / "absent")
    with pytest.raises(ValueError, match="no checkpoint of a known form"):
        load(tmp_path)


def test_the_vocabulary_must_be_there_and_be_the_same(run, load, vocabulary):
    (run / "vocab.model").unlink()
    with pytest.raises(ValueError, match="no vocabulary: looked for .*--vocabulary"):
        load(run)
    assert load(run, tokenizer=vocabulary).step == 20
    other = run / "other.model"
    other.write_bytes(vocabulary.read_bytes() + b"\x1a\x00")
    with pytest.raises(ValueError, match="not the vocabulary .* was trained with"):
        load(run, tokenizer=other)


def test_the_end_of_document_is_a_control_by_name(run_folder, load):
    loaded = load(run_folder, end_of_document="<eot>")
    assert loaded.end_of_document == loaded.tokenizer.eot_id
    with pytest.raises(ValueError, match="did you mean '<eod>'"):
        load(run_folder, end_of_document="<eodd>")
    with pytest.raises(ValueError, match="ordinary piece"):
        load(run_folder, end_of_document="。")


def test_tensors_that_do_not_fit_are_listed(run, load):
    from pangu_alpha.checkpoint.native.format import read_checkpoint, write_checkpoint

    old = read_checkpoint(run / "checkpoints/step_00000020")
    arrays = dict(old.load("model"))
    arrays["surplus"] = arrays.pop("final_norm.gamma")
    config = json.loads(json.dumps(old.manifest.config))
    manifest = dataclasses.replace(old.manifest, config=config, state={"end_of_document": "<eot>"})
    write_checkpoint(run / "odd", {"model": arrays}, manifest)
    with pytest.raises(ValueError, match=r"missing: final_norm.gamma") as error:
        load(run / "odd")
    assert "extra: surplus" in str(error.value)
    arrays["final_norm.gamma"] = arrays.pop("surplus")
    write_checkpoint(run / "good", {"model": arrays}, manifest)
    loaded = load(run / "good")
    assert loaded.end_of_document == loaded.tokenizer.eot_id


def test_a_vocabulary_that_loses_spaces_is_warned_of(run, load, caplog, monkeypatch):
    """Its network has seen <unk> for them, so the two fit each other; who writes prompts must know."""
    from pangu_alpha.text.tokenizer import PanguTokenizer

    assert load(run).step == 20 and "never yields" not in caplog.text
    monkeypatch.setattr(PanguTokenizer, "lost_pieces", ("space", "line feed"))
    assert load(run).step == 20
    assert "vocab.model: text never yields its pieces for space and line feed" in caplog.text


@pytest.mark.parametrize("name", [9, ["<eod>"], {"name": "<eod>"}])
def test_an_end_of_document_that_is_no_text_is_refused(run, load, name):
    from pangu_alpha.checkpoint.native.format import read_checkpoint, write_checkpoint

    old = read_checkpoint(run / "checkpoints/step_00000020")
    manifest = dataclasses.replace(old.manifest, state={"end_of_document": name})
    write_checkpoint(run / "odd", {"model": dict(old.load("model"))}, manifest)
    with pytest.raises(ValueError, match="odd: state.end_of_document is .*, not the name of a piece"):
        load(run / "odd")
    assert load(run / "odd", end_of_document="<eot>").step == 20
