"""Names behind a cell's, moments of any of MindSpore's optimizers, and the folders of MindFormers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import ckpt_target
from pangu_alpha.checkpoint.moving.copying import Limits, Slot, copy_into
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.naming import read_names
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.cli.checkpoint import main
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes

MODEL = ModelConfig(vocab_size=50, hidden_size=32, num_layers=3, num_heads=4, seq_length=16)
QUIET = Limits(progress=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of ours, weights and moments."""
    random, shapes = np.random.default_rng(0), parameter_shapes(MODEL)
    arrays = {
        stem: {p + name: random.random(shape, np.float32) for p in prefixes for name, shape in shapes.items()}
        for stem, prefixes in (("model", ("",)), ("optimizer", ("adam_m.", "adam_v.")))
    }
    path = tmp_path_factory.mktemp("run") / "step_00000007"
    write_checkpoint(path, arrays, Manifest(7, 70, {"model": to_mapping(MODEL)}))
    return path


def write_ckpt(path: Path, source, labels: dict[tuple[str, str], str], step: int = 0) -> None:
    """Tensors of a source in a .ckpt under other names."""
    slots = [
        Slot(stem, name, whole(source.tensors[stem][name].shape), label=label)
        for (stem, name), label in labels.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    copy_into(path, source, [ckpt_target(Path(path.name), slots, step)], limits=QUIET, only=path.name)


def labels(source, front="network.", moments=("adam_m.", "adam_v.")) -> dict[tuple[str, str], str]:
    found = {("model", name): front + name for name in source.tensors["model"]}
    for ours, theirs in zip(("adam_m.", "adam_v."), moments, strict=True):
        found |= {
            ("optimizer", ours + name): f"{theirs}{front}{name}" for _, name in [*found] if _ == "model"
        }
    return found


def equal(one, other, stem):
    return all(
        np.array_equal(*(read_box(each.tensors[stem][name], whole(stored.shape)) for each in (one, other)))
        for name, stored in one.tensors[stem].items()
    )


def folder_of(run, path, shards=1, **config):
    """What save_pretrained(folder, save_json=True) writes."""
    source = open_source(run)
    names = {key: label for key, label in labels(source).items() if key[0] == "model"}
    groups = [dict([*names.items()][shard::shards]) for shard in range(shards)]
    files = [f"mindspore_model{f'-{n + 1:05d}-of-{shards:05d}' * (shards > 1)}.ckpt" for n in range(shards)]
    for file, group in zip(files, groups, strict=True):
        write_ckpt(path / file, source, group)
    if shards > 1:
        where = {label: file for file, group in zip(files, groups, strict=True) for label in group.values()}
        (path / "mindspore_model.ckpt.index.json").write_text(json.dumps({"weight_map": where}))
    shape = {**to_mapping(MODEL), "model_type": "pangu_alpha", "pad_token_id": 6, **config}
    (path / "config.json").write_text(json.dumps(shape))
    return path


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_of_mindformers_is_the_checkpoint_it_was_made_of(run, tmp_path, capsys, shards):
    folder = folder_of(run, tmp_path / "out", shards)
    assert main(["diff", str(run), str(folder), "--weights-only", "--quiet"]) == 0
    assert "the same" in capsys.readouterr().out
    source = open_source(folder)
    assert source.form == f"MindFormers folder, {shards} file{'s' * (shards > 1)}"
    assert source.manifest.config["model"] == to_mapping(MODEL) and source.manifest.kind == "weights"
    assert any("begin with network., which was taken off" in note for note in source.notes)


@pytest.mark.parametrize("said", ["<eot>", {"content": "<eot>"}])
def test_what_ends_a_document_is_that_of_its_tokenizer(run, tmp_path, said):
    folder = folder_of(run, tmp_path / "out")
    assert open_source(folder).manifest.state == {}
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": said}))
    assert open_source(folder).manifest.state == {"end_of_document": "<eot>"}


def test_what_is_wrong_with_such_a_folder_is_said(run, tmp_path):
    folder = folder_of(run, tmp_path / "a", num_layers=2)
    with pytest.raises(CheckpointError, match=r"extra: blocks\.1|extra: network\.blocks\.1"):
        open_source(folder)
    folder = folder_of(run, tmp_path / "b", hidden_size=33)
    with pytest.raises(ValueError, match=r"(?s)config\.json.*not divisible"):
        open_source(folder)
    folder = folder_of(run, tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"config\.json: says vocab_size 50, the model given 40000"):
        open_source(folder, OpenOptions(model="2_6b"))
    folder = folder_of(run, tmp_path / "d", shards=2)
    for name in ("../x.ckpt", "gone.ckpt"):
        (folder / "mindspore_model.ckpt.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match="which is no file of the folder"):
            open_source(folder)


@pytest.mark.parametrize("moments", [("adam_m.", "adam_v."), ("moment1.", "moment2.")])
@pytest.mark.parametrize("front", ["", "network.", "network._backbone.network."])
def test_a_save_of_a_trainer_of_mindspore(run, tmp_path, front, moments):
    """Its folder is what MindFormers' Trainer leaves in OUTPUT/checkpoint: AdamW or MindSpore's own Adam."""
    source = open_source(run)
    write_ckpt(tmp_path / "rank_0" / "CKP_rank_0-1_16.ckpt", source, labels(source, front, moments), step=16)
    found = open_source(tmp_path, OpenOptions(model=MODEL))
    assert (found.manifest.step, found.manifest.kind) == (16, "training")
    assert equal(source, found, "model") and equal(source, found, "optimizer")


def test_names_of_two_networks_are_refused():
    names = list(parameter_shapes(MODEL))
    both = [front + name for front in ("teacher.", "student.") for name in names]
    with pytest.raises(CheckpointError, match=r"names of 2 networks, such as teacher\.\S+, student\."):
        read_names(both, "x.ckpt")
    twice = [f"{moment}network.{name}" for moment in ("", "adam_m.", "moment1.") for name in names]
    with pytest.raises(CheckpointError, match=r"adam_m\.network\.\S+ and moment1\.network\.\S+ are the same"):
        read_names(twice, "x.ckpt")


def test_a_name_of_many_dots_costs_nothing():
    assert read_names(["." * 1_000_000, *parameter_shapes(MODEL)], "x.ckpt").aside == ("." * 1_000_000,)
