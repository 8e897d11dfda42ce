"""The Hugging Face port: read in every way it is stored, written so that it comes back bit for bit."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.export import ExportOptions, export
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.native.format import write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, map_tensors, write_tensors
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.config.schema import ConfigError

QUIET = ExportOptions(limits=Limits(workers=1, progress=False))
NORMS = {"ln_1": "layernorm1", "ln_2": "layernorm2"}
LINEAR = {
    "attn.q_proj": ("attention.dense1", False), "attn.k_proj": ("attention.dense2", False),
    "attn.v_proj": ("attention.dense3", False), "attn.c_proj": ("attention.projection", True),
    "mlp.c_fc": ("output.mapping", True), "mlp.c_proj": ("output.projection", True),
}  # fmt: skip


@pytest.fixture(scope="module")
def port(oracle):
    """The oracle's weights by the port's names, from the official ones by hand."""
    official = {
        name.removeprefix("plain/param/backbone."): a for name, a in oracle.items() if "plain/param/" in name
    }
    tensors = {
        "transformer.wte.weight": official["word_embedding.embedding_table"],
        "transformer.wpe.weight": official["position_embedding.embedding_table"],
        "transformer.wqe.weight": official["top_query_embedding.embedding_table"],
        "transformer.ln_f.weight": official["layernorm.gamma"],
        "transformer.ln_f.bias": official["layernorm.beta"],
        "lm_head.weight": official["word_embedding.embedding_table"],
    }
    for number, layer in enumerate(("blocks.0", "blocks.1", "top_query_layer")):
        for theirs, name in NORMS.items():
            tensors[f"transformer.h.{number}.{theirs}.weight"] = official[f"{layer}.{name}.gamma"]
            tensors[f"transformer.h.{number}.{theirs}.bias"] = official[f"{layer}.{name}.beta"]
        for theirs, (name, flip) in LINEAR.items():
            weight = official[f"{layer}.{name}.weight"]
            weight = np.ascontiguousarray(weight.T if flip else weight)
            tensors[f"transformer.h.{number}.{theirs}.weight"] = weight
            tensors[f"transformer.h.{number}.{theirs}.bias"] = official[f"{layer}.{name}.bias"]
    return tensors


@pytest.fixture
def folder(port, tmp_path):
    """The port as it lies on a disk."""
    path = tmp_path / "port"
    path.mkdir()
    write_tensors(path / "model.safetensors", port)
    values = {"num_heads": 4, "activation_function": "gelu", "resid_pdrop": 0.1, "num_layers": 3}
    (path / "config.json").write_text(json.dumps(values))
    return path


def read(source):
    return {name: read_box(stored, whole(stored.shape)) for name, stored in source.tensors["model"].items()}


def assert_same(source, ours):
    found = read(source)
    assert set(found) == set(ours)
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_one_safetensors_file(folder, ours):
    source = open_source(folder)
    assert source.form == "Hugging Face port, 1 file"
    assert source.manifest.config["model"]["num_layers"] == 3
    assert source.manifest.config["model"]["norm_order"] == "norm_then_query"
    assert any("error function" in note for note in source.notes)
    assert_same(source, ours)
    assert_same(open_source(folder / "model.safetensors"), ours)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_several_files_with_an_index(port, folder, ours, kind, write_torch):
    (folder / "model.safetensors").unlink()
    names, stem, end = [*port], *kind.split(".")
    files = {f"{stem}-0000{n + 1}-of-00002.{end}": names[n::2] for n in range(2)}
    for file, held in files.items():
        group = {name: port[name] for name in held}
        write_torch(folder / file, group) if end == "bin" else write_tensors(folder / file, group)
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (folder / f"{kind}.index.json").write_text(json.dumps(index))
    source = open_source(folder)
    assert source.form == "Hugging Face port, 2 files"
    assert_same(source, ours)
    (folder / [*files][1]).unlink()
    with pytest.raises(CheckpointError, match=f"names files that are missing: {[*files][1]}"):
        open_source(folder)


def test_a_torch_file_with_masks_and_older_names(port, folder, ours, write_torch):
    (folder / "model.safetensors").unlink()
    masks = {f"transformer.h.{n}.attn.bias": np.ones((1, 1, 32, 32), np.uint8) for n in range(3)}
    older = {name.replace("attn.c_proj", "attn.out_proj"): array for name, array in port.items()}
    write_torch(folder / "pytorch_model.bin", older | masks)
    source = open_source(folder)
    assert "3 causal masks left aside" in source.notes
    assert_same(source, ours)


def test_missing_tensors_are_listed(port, folder):
    lacking = {name: array for name, array in port.items() if not name.startswith("transformer.h.2.mlp.c_fc")}
    (folder / "model.safetensors").unlink()
    write_tensors(folder / "model.safetensors", lacking)
    with pytest.raises(CheckpointError) as error:
        open_source(folder)
    assert "missing: transformer.h.2.mlp.c_fc.weight [256, 64]" in str(error.value)
    assert "missing: transformer.h.2.mlp.c_fc.bias [256]" in str(error.value)


def test_a_head_of_its_own_is_refused(port, folder):
    (folder / "model.safetensors").unlink()
    write_tensors(folder / "model.safetensors", port | {"lm_head.weight": port["lm_head.weight"] + 1})
    with pytest.raises(CheckpointError, match="lm_head.weight differs from transformer.wte.weight"):
        open_source(folder)


def test_the_number_of_heads_must_be_said(folder, ours, model_yaml):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="hidden size 64 is none of the shipped.*--model"):
        open_source(folder)
    assert_same(open_source(folder, OpenOptions(model=model_yaml)), ours)
    with pytest.raises(ConfigError, match="num_heads"):
        (folder / "config.json").write_text('{"num_heads": 5}')
        open_source(folder)


def test_exported_and_back_bit_for_bit(checkpoint_of_ours, port, ours, tmp_path):
    export(open_source(checkpoint_of_ours), tmp_path / "made", "huggingface", QUIET)
    arrays = map_tensors(tmp_path / "made/model.safetensors")
    assert set(arrays) == set(port)
    for name, array in port.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    values = json.loads((tmp_path / "made/config.json").read_text())
    assert (values["num_layers"], values["bos_token_id"], values["eos_token_id"]) == (3, 9, 9)
    assert values["activation_function"] == "gelu_new"
    source = open_source(tmp_path / "made")
    assert source.notes == ()
    assert_same(source, ours)
    with pytest.raises(CheckpointError, match="exists already"):
        export(open_source(checkpoint_of_ours), tmp_path / "made", "huggingface", QUIET)


def test_in_half_precision(checkpoint_of_ours, ours, tmp_path):
    options = dataclasses.replace(QUIET, dtype="float16")
    export(open_source(checkpoint_of_ours), tmp_path / "made", "huggingface", options)
    source = open_source(tmp_path / "made")
    assert {piece.dtype for stored in source.tensors["model"].values() for piece in stored.pieces} == {
        "float16"
    }
    assert_same(source, {name: array.astype(np.float16).astype(np.float32) for name, array in ours.items()})


def test_safetensors_takes_our_header(checkpoint_of_ours, tmp_path):
    from safetensors import safe_open

    export(open_source(checkpoint_of_ours), tmp_path / "made", "huggingface", QUIET)
    with safe_open(tmp_path / "made/model.safetensors", "np") as file:
        assert file.metadata()["format"] == "pt"
        assert file.get_tensor("transformer.wqe.weight").shape == (32, 64)


def test_the_200b_graph_has_no_port(checkpoint_of_ours, ours, tmp_path):
    manifest = open_source(checkpoint_of_ours).manifest
    model = {**manifest.config["model"], "norm_order": "query_then_norm"}
    manifest = dataclasses.replace(manifest, config={"model": model})
    write_checkpoint(tmp_path / "other", {"model": ours}, manifest)
    for form in ("huggingface", "megatron"):
        with pytest.raises(CheckpointError, match="norm order is query_then_norm"):
            export(open_source(tmp_path / "other"), tmp_path / "made.safetensors", form, QUIET)


def test_code_in_the_port_is_refused(tmp_path, write_torch):
    write_torch(tmp_path / "pytorch_model.bin", None, b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    with pytest.raises(CheckpointError, match=r"os\.system.*nothing was run"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", '{"num_heads": 4', r"config\.json, line 1, column 16: not JSON"),
        ("config.json", "[4]", r"config\.json: not a JSON object"),
        ("config.json", '{"num_heads": 4, "activation_function": "relu"}', "'relu' is none of gelu"),
    ],
)
def test_files_beside_it_that_cannot_be_used(folder, name, text, said):
    (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=said):
        open_source(folder)
