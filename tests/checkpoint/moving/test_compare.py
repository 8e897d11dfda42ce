"""Differences between two checkpoints of any forms, and damage in one: each is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving import compare as module
from pangu_alpha.checkpoint.moving.compare import compare, damage, unchecked
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.export import ExportOptions, export
from pangu_alpha.checkpoint.native.distributed import LocalParts
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions

QUIET = ExportOptions(limits=Limits(workers=1, progress=False))


@pytest.fixture
def changed(checkpoint_of_ours, ours, tmp_path):
    """Writes the checkpoint with some tensors replaced, and opens it; None leaves one out."""
    count = iter(range(9))

    def write(**changes):
        changes = {name.replace("__", "."): array for name, array in changes.items()}
        arrays = {name: array for name, array in (ours | changes).items() if array is not None}
        path = tmp_path / f"changed_{next(count)}"
        manifest = open_source(checkpoint_of_ours).manifest
        write_checkpoint(path, {"model": arrays}, dataclasses.replace(manifest, files={}))
        return open_source(path)

    return write


def test_what_differs_is_named(checkpoint_of_ours, changed, ours):
    table = ours["query_embedding.table"].copy()
    table[3, 5] += 0.25
    table[7, 1] -= 0.125
    made = changed(
        query_embedding__table=table,
        final_norm__gamma=None,
        final_norm__beta=np.zeros(65, np.float32),
        surplus=np.zeros(2, np.float32),
    )
    found = {each.name: each for each in compare(open_source(checkpoint_of_ours), made)}
    assert {name: each.kind for name, each in found.items()} == {
        "query_embedding.table": "values",
        "final_norm.gamma": "missing",
        "final_norm.beta": "shape",
        "surplus": "extra",
    }
    values = found["query_embedding.table"]
    assert (values.largest, values.place) == (pytest.approx(0.25, abs=1e-6), (3, 5))
    assert values.detail.startswith("2 of 2,048")
    assert found["final_norm.beta"].detail == "[64] and [65]"
    kinds = [each.kind for each in compare(open_source(checkpoint_of_ours), made, tolerance=0.2)]
    assert sorted(kinds) == ["extra", "missing", "shape", "values"]
    assert all(each.kind != "values" for each in compare(open_source(checkpoint_of_ours), made, 0.3))


def test_a_missing_optimizer_is_one_difference(checkpoint_of_ours, ours, tmp_path):
    manifest = dataclasses.replace(open_source(checkpoint_of_ours).manifest, files={}, kind="training")
    moments = {f"adam_m.{name}": array for name, array in ours.items()}
    write_checkpoint(tmp_path / "full", {"model": ours, "optimizer": moments}, manifest)
    pair = open_source(tmp_path / "full"), open_source(checkpoint_of_ours)
    for (found,), kind in ((compare(*pair), "missing"), (compare(*pair[::-1]), "extra")):
        assert (found.stem, found.name, found.kind) == ("optimizer", "", kind)
        assert found.detail == f"all {len(ours)} tensors here only: {tmp_path / 'full'}"


def test_numbers_that_are_not_finite(changed, ours):
    odd = ours["final_norm.gamma"].copy()
    odd[:3] = np.nan, np.inf, -np.inf
    other = odd.copy()
    other[1] = -np.inf
    assert not list(compare(changed(final_norm__gamma=odd), changed(final_norm__gamma=odd)))
    (found,) = compare(changed(final_norm__gamma=odd), changed(final_norm__gamma=other), 1e9)
    assert (found.largest, found.place) == (np.inf, (1,))
    other[0] = 0
    (found,) = compare(changed(final_norm__gamma=odd), changed(final_norm__gamma=other))
    assert found.detail.startswith("2 of 64")


@pytest.mark.parametrize("form", ["huggingface", "ckpt"])
def test_in_small_parts_it_is_the_same(
    checkpoint_of_ours, changed, ours, model_yaml, tmp_path, monkeypatch, form
):
    # of the .ckpt, whose matrices are transposed, parts are columns
    monkeypatch.setattr(module, "_ROWS", 100)
    monkeypatch.setattr(module, "_TURNED", 1000)
    weight = ours["blocks.1.feed_forward.up.weight"].copy()
    weight[200, 60] += 1
    path = tmp_path / "exported.ckpt"
    export(changed(blocks__1__feed_forward__up__weight=weight), path, form, QUIET)
    other, counted = open_source(path, OpenOptions(model=model_yaml)), []
    for pair in ((open_source(checkpoint_of_ours), other), (other, open_source(checkpoint_of_ours))):
        (found,) = compare(*pair, progress=counted.append)
        assert (found.name, found.place) == ("blocks.1.feed_forward.up.weight", (200, 60))
    assert not list(compare(other, other))
    assert sum(counted) == 2 * sum(array.size for array in ours.values())


def test_damage_is_named_and_forms_without_checksums_too(
    checkpoint_of_ours, changed, ours, model_yaml, tmp_path
):
    whole = changed()
    counted = []
    assert not list(damage(whole, counted.append)) and not unchecked(whole)
    assert sum(counted) == sum(array.nbytes for array in ours.values())
    piece = whole.tensors["model"]["blocks.0.attention.key.weight"].pieces[0]
    data = bytearray(piece.file.read_bytes())
    data[piece.extents[0][0] + 77] ^= 4
    piece.file.write_bytes(data)
    (found,) = damage(open_source(whole.path))
    assert "model.safetensors: damaged: blocks.0.attention.key.weight: expected xxh3_128" in found
    export(open_source(checkpoint_of_ours), tmp_path / "w.ckpt", "ckpt", QUIET)
    other = open_source(tmp_path / "w.ckpt", OpenOptions(model=model_yaml))
    assert not list(damage(other)) and [file.name for file in unchecked(other)] == ["w.ckpt"]


def test_torch_files_are_checked_by_their_zip(ours, model_yaml, tmp_path, write_torch):
    from pangu_alpha.checkpoint.foreign.torch.huggingface import PORT
    from pangu_alpha.checkpoint.foreign.torch.torch_file import flatten, read_torch_file

    file = tmp_path / "pytorch_model.bin"
    write_torch(file, {theirs: ours[own] for own, theirs in PORT.names(3).items()})
    source = open_source(file, OpenOptions(model=model_yaml))
    assert not list(damage(source)) and not unchecked(source)
    data = bytearray(file.read_bytes())
    data[flatten(read_torch_file(file))["transformer.wqe.weight"].offset] ^= 1
    file.write_bytes(data)
    (found,) = damage(source)
    assert "CRC-32" in found and "pytorch_model.bin" in found


def test_unknown_forms_and_types_are_refused(checkpoint_of_ours, tmp_path):
    source = open_source(checkpoint_of_ours)
    with pytest.raises(CheckpointError, match="'onnx' is none of huggingface"):
        export(source, tmp_path / "x", "onnx")
    with pytest.raises(CheckpointError, match="dtype: 'int8' is none of float32"):
        export(source, tmp_path / "x", "ckpt", ExportOptions(dtype="int8"))
    with pytest.raises(CheckpointError, match="dtype: released is written in float32"):
        export(source, tmp_path / "x", "released", ExportOptions(dtype="float16"))
    assert not list(tmp_path.iterdir())


def test_copies_in_node_local_parts_are_verified(tmp_path):
    """Two ranks hold `w`, rank 1 as a copy, from which it would resume."""
    plan, whole_of_w = {"dp": 2}, {"start": [0, 0], "shape": [4, 3]}
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    for rank, stem in enumerate(("model", "model_copies")):
        said = Manifest(1, 8, {"parallel": plan}, slices={stem: {"w": whole_of_w}})
        part = LocalParts(CheckpointStore(tmp_path), rank, "one", plan).save({stem: {"w": rows}}, said)
    source = open_source(tmp_path)
    assert list(damage(source)) == []
    file = part / "model_copies.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (found,) = damage(source)
    assert found.startswith(f"{file}: w: expected xxh3_128 ")
