"""Checkpoints of every form load as they are and give the official code's logits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pangu_alpha.checkpoint.foreign.mindspore.export import export_released
from pangu_alpha.checkpoint.foreign.mindspore.released import released_names
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.export import ExportOptions, export
from pangu_alpha.checkpoint.moving.reshard import reshard
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping

CONFIG = ModelConfig(vocab_size=1000, hidden_size=64, num_layers=3, num_heads=4, seq_length=32)
QUIET = Limits(workers=1, progress=False)
PLAN = ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2, optimizer_parallel="level1", optimizer_threshold=0)
FORMS = {
    "ours": "one process's checkpoint",
    "slices": "slices of 8 ranks",
    "released": "",
    "ckpt": "",
    "mindspore": "MindSpore's slices",
    "unified": "MindSpore's unified safetensors",
    "huggingface": "Hugging Face port",
    "megatron": "Megatron-style",
}
TOLERANCE = 2e-5  # between independent float32 implementations, on logits of standard deviation 7


@pytest.fixture(scope="module")
def ours(oracle, tmp_path_factory):
    """The oracle's network as one of our checkpoints."""
    arrays = {}
    for name, (official, flip) in released_names(CONFIG).items():
        array = oracle[f"plain/param/{official}"]
        arrays[name] = np.ascontiguousarray(array.T if flip else array)
    path = tmp_path_factory.mktemp("forms") / "step_00000003"
    write_checkpoint(path, {"model": arrays}, Manifest(3, 0, {"model": to_mapping(CONFIG)}))
    return path


@pytest.fixture(scope="module")
def made(ours):
    """Writes the checkpoint in a form, once, and says where."""

    def make(form):
        source, path = open_source(ours), ours.parent / form
        if form == "ours":
            return ours
        if path.exists():
            return path
        if form == "slices":
            reshard(source, path, PLAN, weights_only=True, limits=QUIET)
        elif form == "released":
            export_released(source, path, dp=2, mp=2, limits=QUIET)
        else:
            path = path.with_suffix({"ckpt": ".ckpt", "megatron": ".safetensors"}.get(form, ""))
            if not path.exists():
                export(source, path, form, ExportOptions(limits=QUIET))
        return path

    return make


@pytest.fixture(scope="module")
def model(cpu):
    """A network to be given weights."""
    from pangu_alpha.model.pangu import PanguAlpha

    return PanguAlpha(CONFIG).set_train(False)


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_the_oracles(made, model, oracle, form):
    from mindspore import Tensor

    from pangu_alpha.inference.load import load_weights
    from pangu_alpha.model.initialization import initialize

    initialize(model, seed=0)
    source = open_source(made(form), OpenOptions(model=CONFIG))
    assert source.form.startswith(FORMS[form])
    load_weights(model, source)
    ids = oracle["plain/A/input_ids"].astype(np.int32)[:, :32]
    fields = ids, oracle["plain/A/position_ids"].astype(np.int32), oracle["plain/A/attention_mask"]
    logits = model(
        *(Tensor(np.asarray(f, np.float32 if f.ndim == 3 else np.int32)) for f in fields)
    ).asnumpy()
    np.testing.assert_allclose(logits.reshape(64, 1000), oracle["plain/A/logits"], atol=TOLERANCE, rtol=1e-5)


def test_foreign_forms_need_a_vocabulary(made, vocabulary, cpu):
    from pangu_alpha.inference.load import load_for_inference

    path = made("huggingface")
    with pytest.raises(ValueError, match="no vocabulary: looked for .*--vocabulary FILE"):
        load_for_inference(path)
    loaded = load_for_inference(path, vocabulary)
    assert loaded.form == "Hugging Face port, 1 file" and loaded.notes == ()
    assert loaded.end_of_document == loaded.tokenizer.eod_id


def test_an_export_takes_vocabulary_and_end_along(run_folder, tmp_path, cpu):
    import json

    from pangu_alpha.inference.load import load_for_inference

    export(open_source(run_folder), tmp_path / "made", "huggingface", ExportOptions(limits=QUIET))
    loaded = load_for_inference(tmp_path / "made")
    values = json.loads((tmp_path / "made/config.json").read_text())
    assert loaded.tokenizer.vocab_file == tmp_path / "made/vocab.model"
    assert values["eos_token_id"] == 9  # the run does not say what it ended documents with
    source = open_source(run_folder)
    ended = dataclasses.replace(source.manifest, state={"end_of_document": "<sep>"})
    other = dataclasses.replace(source, manifest=ended)
    export(other, tmp_path / "other", "huggingface", ExportOptions(limits=QUIET))
    values = json.loads((tmp_path / "other/config.json").read_text())
    assert values["eos_token_id"] == loaded.tokenizer.id_of("<sep>") != 9


def test_an_export_leaves_another_vocabulary_out(run_folder, tmp_path):
    source = open_source(run_folder)
    manifest = dataclasses.replace(source.manifest, tokenizer="0" * 64)
    other = dataclasses.replace(source, manifest=manifest)
    export(other, tmp_path / "made", "huggingface", ExportOptions(limits=QUIET))
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == ["config.json", "model.safetensors"]


def test_predict_says_what_it_found(made, vocabulary, capsys, caplog, tmp_path):
    from pangu_alpha.cli.predict import main

    model = tmp_path / "model.yaml"
    model.write_text(f"model: {to_mapping(CONFIG)}\n")
    words = [
        "--vocabulary",
        str(vocabulary),
        "--device",
        "CPU",
        "--prompt",
        "天下大势",
        "--max-new-tokens",
        "2",
    ]
    with caplog.at_level("INFO"):
        assert main(["--checkpoint", str(made("ckpt")), "--model", str(model), *words]) == 0
    assert capsys.readouterr().out.startswith("天下大势")
    assert f"{made('ckpt')}: loaded, " in caplog.text and ".ckpt" in caplog.text


def test_a_damaged_tensor_is_named(made, model, tmp_path):
    import shutil

    from pangu_alpha.inference.load import load_weights

    path = shutil.copytree(made("ours"), tmp_path / "copy")
    file = path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"model.safetensors: damaged: .*: expected xxh3_128"):
        load_weights(model, open_source(path))
