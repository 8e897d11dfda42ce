"""A folder of the port that lost something, or says two things: nothing opens as a smaller model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.foreign.torch.huggingface import PORT, port_json
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.export import ExportOptions, export
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.native.tensor_file import write_tensors
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.network.parameters import parameter_shapes

MODEL = ModelConfig(vocab_size=24, hidden_size=8, num_layers=3, num_heads=2, seq_length=4)
CONFIG = port_json(MODEL, "float32")
NAMES = PORT.names(MODEL.num_layers)
TABLE, HEAD = "transformer.wte.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def tensors():
    rng, shapes = np.random.default_rng(0), parameter_shapes(MODEL)
    made = {theirs: rng.standard_normal(shapes[ours], dtype=np.float32) for ours, theirs in NAMES.items()}
    return made | {HEAD: made[TABLE]}


@pytest.fixture
def put(tmp_path):
    """Writes a folder of the port; a config of None is none."""

    def put(tensors, config=CONFIG, folder=tmp_path / "port", file="model.safetensors"):
        folder.mkdir(exist_ok=True)
        write_tensors(folder / file, tensors)
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    return put


def without(tensors, *parts):
    return {name: each for name, each in tensors.items() if not any(part in name for part in parts)}


def assert_all(source, tensors):
    found = source.tensors["model"]
    assert found.keys() == NAMES.keys()
    for ours, theirs in NAMES.items():
        np.testing.assert_array_equal(read_box(found[ours], whole(found[ours].shape)), tensors[theirs])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_layers": 40}, "num_layers: .*config.json says 40, the tensors show 3"),
        ({"hidden_size": 5120}, "hidden_size: .* says 5120, the tensors show 8"),
        ({"vocab_size": 40000}, "vocab_size: .* says 40000, the tensors show 24"),
        ({"max_position_embeddings": 1024}, "max_position_embeddings: .* says 1024, the tensors show 4"),
        ({"intermediate_size": 16}, "intermediate_size: .* says 16, PanGu-alpha has 32"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings: .* says false, PanGu-alpha has true"),
        ({"n_layer": 2}, "n_layer: .* says 2, the tensors show 3"),
        ({"n_head": 4}, "n_head: .* says 4, .*config.json says 2"),
        ({"num_layers": "3"}, "config.json: num_layers is '3', which is no size"),
        ({"resid_pdrop": 10**400}, "config.json: resid_pdrop is .* not a number from 0"),
        ({"activation_function": ["gelu"]}, r"activation_function \['gelu'\] is none of"),
    ],
)
def test_what_config_json_says_is_compared(tensors, put, changes, said):
    with pytest.raises(CheckpointError, match=said):
        open_source(put(tensors, {**CONFIG, **changes}))


def test_a_table_with_rows_for_padding_opens_where_config_json_counts_them(tensors, put, tmp_path):
    table = np.pad(tensors[TABLE], ((0, 8), (0, 0)))
    padded = {**tensors, TABLE: table, HEAD: table}
    with pytest.raises(CheckpointError, match="vocab_size: .* says 24, the tensors show 32"):
        open_source(put(padded))  # as transformers does: another model's table would look the same
    source = open_source(put(padded, {**CONFIG, "vocab_size": 32}, tmp_path / "counted"))
    assert source.manifest.config["model"]["vocab_size"] == 32
    assert_all(source, padded)


def test_all_differences_are_named_at_once(tensors, put):
    with pytest.raises(CheckpointError) as error:
        open_source(put(tensors, {**CONFIG, "num_layers": 4, "vocab_size": 25, "hidden_size": 16}))
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0].strip(" -") for line in lines] == ["vocab_size", "hidden_size", "num_layers"]


def test_a_lost_last_layer_does_not_make_a_smaller_model(tensors, put):
    with pytest.raises(CheckpointError, match="num_layers: .* says 3, the tensors show 2"):
        open_source(put(without(tensors, "transformer.h.2.")))


def test_a_lost_inner_layer_is_named(tensors, put, tmp_path):
    with pytest.raises(CheckpointError, match="missing: layers 1; 2 are there, named transformer.h.N"):
        open_source(put(without(tensors, "transformer.h.1.")))
    with pytest.raises(CheckpointError, match="missing: all layers, named transformer.h.0"):
        open_source(put(without(tensors, ".h."), folder=tmp_path / "none"))


def test_the_model_that_the_user_names_is_compared_too(tensors, put):
    folder = put(tensors)
    other = ModelConfig(vocab_size=24, hidden_size=8, num_layers=3, num_heads=4, seq_length=4)
    with pytest.raises(CheckpointError, match="num_heads: this run says 4, .*config.json says 2"):
        open_source(folder, OpenOptions(model=other))
    assert_all(open_source(folder, OpenOptions(model=MODEL)), tensors)


def test_the_header_of_our_export_and_config_json_are_compared(checkpoint_of_ours, tmp_path):
    quiet = ExportOptions(limits=Limits(workers=1, progress=False))
    export(open_source(checkpoint_of_ours), tmp_path / "made", "huggingface", quiet)
    values = json.loads((tmp_path / "made/config.json").read_text())
    (tmp_path / "made/config.json").write_text(json.dumps({**values, "num_heads": 8}))
    with pytest.raises(CheckpointError, match="num_heads: .*config.json says 8, the header of .* says 4"):
        open_source(tmp_path / "made")


@pytest.mark.parametrize("size", ["n_layer", "num_hidden_layers"])
def test_names_of_other_configurations_are_read(tensors, put, size):
    config = {"model_type": "gpt2", size: 3, "n_head": 2, "n_embd": 8, "n_positions": 4, "vocab_size": 24}
    source = open_source(put(tensors, config))
    assert source.manifest.config["model"]["num_heads"] == 2
    assert_all(source, tensors)


def test_heads_that_no_tensor_shows_are_noted(put):
    from pangu_alpha.checkpoint.foreign.torch.ports import port_config
    from pangu_alpha.checkpoint.sizes import stated

    sizes = {"vocab_size": 40000, "hidden_size": 1024, "num_layers": 24, "seq_length": 1024}
    said = stated("config.json", {"num_heads": 8}, {"num_heads": ("num_heads",)})
    config, notes = port_config(sizes, {}, said, OpenOptions(), put)
    assert config.num_heads == 8
    only = "8 heads, as config.json alone says: no tensor shows their number"
    assert notes == (f"{only}; the shipped model of this hidden size has 16",)
    assert port_config(sizes, {}, said * 2, OpenOptions(), put)[1] == ()


def test_lost_layers_are_suspected_where_heads_are_assumed(tmp_path):
    from pangu_alpha.checkpoint.foreign.torch.ports import port_config

    sizes = {"vocab_size": 40000, "hidden_size": 1024, "num_layers": 23, "seq_length": 1024}
    with pytest.raises(CheckpointError, match="23 layers; the shipped model .* has 24: are layers lost?"):
        port_config(sizes, {}, [], OpenOptions(), tmp_path)


@pytest.mark.parametrize("front", ["module.", "_orig_mod.", "model.", "base_model.model.", "model.module."])
def test_a_wrapper_is_taken_off_and_said(tensors, put, front):
    source = open_source(put({front + name: each for name, each in tensors.items()}))
    assert_all(source, tensors)
    assert f"{front!r} taken off the names of {len(tensors)} tensors" in source.notes


@pytest.mark.parametrize("front", ["", "module._orig_mod."])
def test_the_base_model_alone(tensors, put, front):
    bare = {front + name.removeprefix("transformer."): each for name, each in tensors.items() if name != HEAD}
    source = open_source(put(bare))
    assert_all(source, tensors)
    assert "names of the base model, without 'transformer.'" in source.notes


@pytest.mark.parametrize("key", ["state_dict", "model", "module", "model_state_dict"])
def test_files_of_training_scripts(tensors, put, write_torch, key):
    folder = put({}, file="other")
    moments = {"state": {"0": {"exp_avg": tensors[TABLE]}}}
    write_torch(folder / "pytorch_model.bin", {key: dict(tensors), "optimizer": moments, "epoch": 3})
    source = open_source(folder)
    assert_all(source, tensors)
    assert f"{key + '.'!r} taken off the names of {len(tensors)} tensors" in source.notes
    aside = "left aside, beside the weights: 1 tensors such as 'optimizer.state.0.exp_avg'"
    assert aside in source.notes


def test_names_behind_an_unknown_front_are_shown(tensors, put):
    folder = put({f"student.{name}": each for name, each in tensors.items()})
    with pytest.raises(CheckpointError, match=f"missing: {TABLE}.*; it has student.lm_head.weight"):
        open_source(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of a known form; model.safetensors has student"):
        open_source(folder)


def test_an_equal_head_of_another_type_is_tied(tensors, put):
    half = {name: each.astype(np.float16) for name, each in tensors.items()}
    table = half[TABLE].astype(np.float32)
    source = open_source(put({**half, HEAD: table}))
    assert_all(source, {name: each.astype(np.float32) for name, each in half.items()})
    table[3, 5] += 1e-7
    with pytest.raises(CheckpointError, match="differs from transformer.wte.weight"):
        open_source(put({**half, HEAD: table}, folder=source.path.parent / "untied"))


def index(folder, tensors, name="{}"):
    """Cuts into two files that an index names."""
    files = {f"{number}.safetensors": {} for number in range(2)}
    for number, (tensor, array) in enumerate(tensors.items()):
        files[f"{number % 2}.safetensors"][tensor] = array
    (folder / "weights").mkdir(parents=True)
    for file, own in files.items():
        write_tensors(folder / "weights" / file, own)
    named = {tensor: name.format(file) for file, own in files.items() for tensor in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    return folder


def test_config_json_beside_the_index_counts_for_shards_below(tensors, tmp_path):
    folder = index(tmp_path / "port", tensors, "weights/{}")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert_all(open_source(folder), tensors)
    (folder / "weights/config.json").write_text(json.dumps({**CONFIG, "num_layers": 2}))
    with pytest.raises(CheckpointError, match="num_layers: .*weights/config.json says 2"):
        open_source(folder)


@pytest.mark.parametrize("name", ["../port/weights/{}", "weights/../weights/{}", "{here}/weights/{}", 5])
def test_an_index_names_files_of_its_folder_alone(tensors, tmp_path, name):
    folder = index(tmp_path / "port", tensors)
    found = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    outside = {
        tensor: name if name == 5 else name.replace("{here}", str(folder)).replace("{}", file)
        for tensor, file in found.items()
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": outside}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(
        CheckpointError, match=r"index.json: names .* as the file of .*only a file in the folder"
    ):
        open_source(folder)


def test_the_cache_of_hugging_face_opens(tensors, tmp_path):
    real = index(tmp_path / "real", tensors, "{}")
    snapshot, blobs = tmp_path / "hub/snapshots/abc", tmp_path / "hub/blobs"
    snapshot.mkdir(parents=True)
    (real / "config.json").write_text(json.dumps(CONFIG))
    shutil.copytree(real / "weights", real, dirs_exist_ok=True)
    blobs.mkdir()
    for number, file in enumerate(each for each in real.iterdir() if each.is_file()):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert_all(open_source(snapshot), tensors)


def test_what_is_wrong_is_said_without_config_json_too(tensors, put):
    folder = put(tensors, None)
    file = folder / "model.safetensors"
    whole_file = file.read_bytes()
    file.write_bytes(whole_file[: len(whole_file) // 2])
    with pytest.raises(CheckpointError, match=r"model.safetensors: .*: bytes .* are not its data"):
        open_source(folder)
    file.write_bytes(whole_file[:100])
    with pytest.raises(CheckpointError, match=r"model.safetensors: not a safetensors file \(cut short\)"):
        open_source(folder)


@pytest.mark.parametrize("name", [TABLE, "transformer.wpe.weight"])
@pytest.mark.parametrize("shape", [(), (192,), (24, 8, 1)])
def test_a_table_of_another_rank_is_named(tensors, put, name, shape):
    folder = put(tensors | {name: np.zeros(shape, np.float32)})
    with pytest.raises(CheckpointError, match=f"model.safetensors: {name} is .*: {len(shape)} dimensions"):
        open_source(folder)


def test_headers_of_100_million_layers(tensors, put):
    folder = put({name: tensors[name] for name in (TABLE, "transformer.wpe.weight", "transformer.wqe.weight")}
                 | {"transformer.h.99999999.ln_1.weight": np.zeros(8, np.float32)})  # fmt: skip
    with pytest.raises(CheckpointError, match="missing: layers 0 to 99999998; 1 are there"):
        open_source(folder)


@pytest.mark.parametrize(
    "name", ["h.0.attn.c_attn.weight", "transformer.h.11.mlp.c_fc.weight", "encoder.layers.3.mlp.weight"]
)
def test_another_model_is_said_to_be_another(tmp_path, name):
    """GPT-2's names, for one: its blocks are like ours, but there is no query layer."""
    save_file({name: np.zeros((4, 12), np.float32)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match="without PanGu-alpha's query layer, and no other model opens"):
        open_source(tmp_path)
