"""What the user adds to a checkpoint that says itself what it is; malformed manifests; integers."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from pangu_alpha.checkpoint.native.distributed import open_part
from pangu_alpha.checkpoint.native.format import MANIFEST, MARKER, Manifest, seal_folder, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, checksum
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import ConfigError, to_mapping

MODEL = ModelConfig(vocab_size=61, hidden_size=24, num_layers=2, num_heads=4, seq_length=8)
ARRAYS = {"model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}}
SAID = Manifest(7, 70, {"model": to_mapping(MODEL)}, kind="weights")


@pytest.fixture
def path(tmp_path):
    write_checkpoint(tmp_path / "whole", ARRAYS, SAID)
    return tmp_path / "whole"


def test_what_it_says_itself_may_be_said_again(path):
    running = dataclasses.replace(
        MODEL, dropout=0.0, compute_dtype="bfloat16"
    )  # how it is run, not what it is
    for options in (OpenOptions(model=MODEL), OpenOptions(running, norm_order="norm_then_query")):
        assert open_source(path, options).manifest.config["model"] == to_mapping(MODEL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (OpenOptions(norm_order="query_then_norm"), "says its own order, norm_then_query; leave it out"),
        (OpenOptions(model="2_6b"), r"model.vocab_size is 61 there, 40000 in 2_6b.*leave --model out"),
        (
            OpenOptions(model=dataclasses.replace(MODEL, num_heads=8)),
            "model.num_heads is 4 there, 8 in this run",
        ),
        (OpenOptions(strategy="s.ckpt"), "which no strategy file places: leave --strategy s.ckpt out"),
    ],
)
def test_what_contradicts_it_is_refused(path, options, said):
    with pytest.raises(CheckpointError, match=said):
        open_source(path, options)


def test_a_model_that_is_none_is_refused(path):
    with pytest.raises(ConfigError, match="neither"):
        open_source(path, OpenOptions(model="7_2b"))


def test_options_for_several_may_be_of_use_to_another(path):
    assert open_source(path, OpenOptions(strategy="s.ckpt", shared=True)).manifest.step == 7


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "bool"])
def test_integers_are_refused(tmp_path, dtype):
    from safetensors.numpy import save_file

    from pangu_alpha.network.parameters import parameter_shapes

    arrays = {name: np.ones(shape, np.float16) for name, shape in parameter_shapes(MODEL).items()}
    save_file(arrays, tmp_path / "model.safetensors")
    assert open_source(tmp_path / "model.safetensors", OpenOptions(model=MODEL)).tensors["model"].keys() == (
        arrays.keys()
    )
    arrays["blocks.0.feed_forward.up.weight"] = arrays["blocks.0.feed_forward.up.weight"].astype(dtype)
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=f"1 tensors are no floating.*up.weight is {dtype}; if it is quant"
    ):
        open_source(tmp_path / "model.safetensors", OpenOptions(model=MODEL))


def reseal(folder, manifest):
    """Another manifest, with the marker that fits it."""
    for name in (MANIFEST, MARKER):
        (folder / name).unlink()
    seal_folder(folder, manifest)


def parts_of(folder, change=None):
    """A checkpoint of two ranks' halves; `change` is made to the manifest of each."""
    config, parts = SAID.config | {"parallel": {"dp": 2}}, {}
    for rank, name in enumerate(("rank_00000", "rank_00001")):
        place = {"w": {"start": [rank, 0], "shape": [2, 3]}}
        part = dataclasses.replace(SAID, kind="part", config=config, slices={"model": place})
        half = {"w": ARRAYS["model"]["w"][rank : rank + 1]}
        written = write_checkpoint(folder / name, {"model": half}, part)
        if change:
            reseal(folder / name, change(written))
        parts[name] = checksum((folder / name / MANIFEST).read_bytes())
    whole = dataclasses.replace(SAID, kind="slices", config=config, parts=parts)
    seal_folder(folder, whole)
    return folder, whole


@pytest.mark.parametrize("name", ["../bad/rank_00000", "/tmp/rank_00000", "..", "step", "rank_0"])
def test_a_part_is_never_a_path(tmp_path, name):
    folder, whole = parts_of(tmp_path / "bad")
    assert open_source(folder).form == "slices of 2 ranks"
    digest, rest = whole.parts["rank_00000"], whole.parts["rank_00001"]
    reseal(folder, dataclasses.replace(whole, parts={name: digest, "rank_00001": rest}))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}.*'{re.escape(name)}'"):
        open_source(folder)


def without_record(manifest):
    record = dataclasses.replace(manifest.files["model"], tensors={})
    return dataclasses.replace(manifest, files={"model": record})


@pytest.mark.parametrize(
    "change",
    [
        without_record,
        lambda manifest: dataclasses.replace(manifest, slices={"model": {}}),
        lambda manifest: dataclasses.replace(manifest, slices={"model": {"w": {"start": [0], "shape": [2]}}}),
    ],
)
def test_a_manifest_that_does_not_fit_its_file_is_named(tmp_path, change):
    folder, _ = parts_of(tmp_path / "bad", change)
    for opened in (lambda: open_source(folder), lambda: open_part(folder / "rank_00001")):
        with pytest.raises(
            CheckpointError, match=f"rank_0000.*{MANIFEST}.*: it does not say what w of model is"
        ):
            opened()


@pytest.mark.parametrize("parallel", [{"dp": "two"}, {"tensor": 2}, {"dp": 1 << 40}])
def test_a_plan_that_is_none_is_named(tmp_path, parallel):
    folder, _ = parts_of(
        tmp_path / "bad",
        lambda manifest: dataclasses.replace(manifest, config=SAID.config | {"parallel": parallel}),
    )
    (folder / MARKER).unlink()  # as on storage of each node
    with pytest.raises(
        CheckpointError, match=r"(?s)rank_00000.*(parallel\.(dp|tensor)|1,099,511,627,776 devices)"
    ):
        open_source(folder)
