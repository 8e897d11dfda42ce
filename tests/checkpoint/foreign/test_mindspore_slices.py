from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from pangu_alpha.checkpoint.foreign.mindspore.export import STRATEGY_FILE, export_slices, export_unified
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes

QUIET = Limits(workers=1, progress=False)
MODEL = ModelConfig(vocab_size=101, hidden_size=64, num_layers=3, num_heads=4, seq_length=32)
FOUR = ParallelPlan(dp=2, tp=2, optimizer_parallel="level1", optimizer_threshold=1)
EIGHT = ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2, optimizer_parallel="level2", optimizer_threshold=4)
OPTIONS = OpenOptions(model=MODEL)


@pytest.fixture(scope="module")
def arrays():
    rng, shapes = np.random.default_rng(0), parameter_shapes(MODEL)
    named = {"model": shapes}
    named["optimizer"] = {f"adam_{kind}.{name}": shape for kind in "mv" for name, shape in shapes.items()}
    return {
        stem: {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in group.items()}
        for stem, group in named.items()
    }


@pytest.fixture(scope="module")
def source(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("ours") / "step_00000007"
    write_checkpoint(path, arrays, Manifest(7, 70, {"model": to_mapping(MODEL)}))
    return open_source(path)


def export(source, folder, plan, names="ours", form="ckpt"):
    export_slices(source, folder, plan, names, form, QUIET)
    return folder


@pytest.mark.parametrize("plan", [FOUR, EIGHT, ParallelPlan(tp=4, vocab_parallel=False)])
@pytest.mark.parametrize(("names", "form"), [("ours", "ckpt"), ("official", "ckpt"), ("ours", "safetensors")])
def test_slices_come_back_with_and_without_their_strategy(
    tmp_path, source, arrays, plan, names, form, assert_whole
):
    folder = export(source, tmp_path / "slices", plan, names, form)
    found = assert_whole(folder, arrays, OPTIONS)
    assert found.form == f"MindSpore's slices of {plan.devices} ranks, placed by the strategy {STRATEGY_FILE}"
    assert found.manifest.step == 7
    (folder / STRATEGY_FILE).rename(tmp_path / "elsewhere.ckpt")
    assert "placed by the official rule" in assert_whole(folder, arrays, OPTIONS).form
    options = OpenOptions(model=MODEL, strategy=tmp_path / "elsewhere.ckpt")
    assert_whole(folder, arrays, options)


def same_files(one, other):
    import mindspore as ms

    found, wanted = ms.load_checkpoint(str(one)), ms.load_checkpoint(str(other))
    assert found.keys() == wanted.keys()
    return all(np.array_equal(found[name].asnumpy(), wanted[name].asnumpy()) for name in wanted)


@pytest.mark.parametrize(("before", "after"), [(FOUR, EIGHT), (EIGHT, FOUR)])
def test_mindspore_transforms_our_slices_into_our_slices(
    cpu, tmp_path, source, arrays, before, after, assert_whole
):
    from mindspore.parallel import transform_checkpoints

    old, new = export(source, tmp_path / "old", before), export(source, tmp_path / "new", after)
    files = [str(folder / STRATEGY_FILE) for folder in (old, new)]
    transform_checkpoints(str(old), str(tmp_path / "made"), "made", *files)
    for rank in range(after.devices):
        made = tmp_path / "made" / f"rank_{rank}" / f"made{rank}.ckpt"
        assert same_files(made, new / f"rank_{rank}" / "pangu_alpha.ckpt"), rank
    assert_whole(tmp_path / "made", arrays, OpenOptions(model=MODEL, strategy=new / STRATEGY_FILE))


def test_unified_safetensors_both_ways(cpu, tmp_path, monkeypatch, source, arrays, assert_whole):
    import psutil
    from mindspore.parallel import load_distributed_checkpoint, unified_safetensors
    from safetensors.numpy import load_file

    # MindSpore 2.9 waits for ever while more than half of the machine's memory is in use
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(percent=0))
    slices = export(source, tmp_path / "slices", EIGHT, form="safetensors")
    strategy = str(slices / STRATEGY_FILE)
    unified_safetensors(str(slices), strategy, str(tmp_path / "theirs"))
    found = assert_whole(tmp_path / "theirs", arrays, OPTIONS)
    assert found.form == "MindSpore's unified safetensors, 1 files" and found.manifest.step == 7
    export_unified(source, tmp_path / "ours", plan=EIGHT, limits=QUIET)
    assert assert_whole(tmp_path / "ours", arrays, OPTIONS).manifest.step == 7
    for rank in (1, 6):
        load_distributed_checkpoint(
            None,
            format="safetensors",
            unified_safetensors_dir=str(tmp_path / "ours"),
            predict_strategy=strategy,
            dst_safetensors_dir=str(tmp_path / "loaded"),
            rank_id=rank,
        )
        made = load_file(tmp_path / "loaded" / f"rank_{rank}" / "net.safetensors")
        wanted = load_file(slices / f"rank_{rank}" / "pangu_alpha.safetensors")
        assert made.keys() == wanted.keys()
        assert all(np.array_equal(made[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("names", ["ours", "official"])
def test_unified_files_are_split_by_size(tmp_path, monkeypatch, source, arrays, names, assert_whole):
    from pangu_alpha.checkpoint.foreign.mindspore import export as mindspore_export

    monkeypatch.setattr(mindspore_export, "_UNIFIED_FILE", 500_000)
    export_unified(source, tmp_path / "unified", names, limits=QUIET)
    parts = sorted(path.name for path in (tmp_path / "unified").glob("part*"))
    assert parts == [f"part{index}.safetensors" for index in range(4)]
    assert_whole(tmp_path / "unified", arrays, OPTIONS)
    where = json.loads((tmp_path / "unified" / "param_name_map.json").read_text())["weight_map"]
    assert set(where.values()) == set(parts) and len(where) == 3 * len(arrays["model"])
    (tmp_path / "unified" / "part3.safetensors").unlink()
    with pytest.raises(CheckpointError, match="part3.safetensors: missing, though"):
        open_source(tmp_path / "unified", OPTIONS)


def test_redundancy_removed_by_mindspore_is_no_loss(cpu, tmp_path, source, arrays, assert_whole):
    """What save_checkpoint(remove_redundancy=True) leaves: every slice on one of the ranks that hold it."""
    from safetensors.numpy import load_file, save_file

    slices = export(source, tmp_path / "slices", FOUR, form="safetensors")
    seen = set()
    for rank in range(4):
        file = slices / f"rank_{rank}" / "pangu_alpha.safetensors"
        kept = {name: array for name, array in load_file(file).items() if (name, array.tobytes()) not in seen}
        seen |= {(name, array.tobytes()) for name, array in kept.items()}
        save_file(kept, file)
    assert_whole(slices, arrays, OPTIONS)
    (slices / STRATEGY_FILE).unlink()
    with pytest.raises(CheckpointError, match="ranks of one stage hold different tensors; give the strategy"):
        open_source(slices, OPTIONS)


def test_a_missing_rank_or_slice_is_named(tmp_path, source):
    from safetensors.numpy import load_file, save_file

    slices = export(source, tmp_path / "slices", EIGHT, form="safetensors")
    file = slices / "rank_5" / "pangu_alpha.safetensors"
    tensors = load_file(file)
    del tensors["query_layer.attention.key.weight"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="query_layer.attention.key.weight: no file has .* ranks 1"):
        open_source(slices, OPTIONS)
    tensors["query_layer.attention.key.weight"] = np.zeros((8, 64), np.float32)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"is float32 \[8, 64\], elsewhere float32 \[16, 64\]"):
        open_source(slices, OPTIONS)
    file.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint in the folders of ranks 5"):
        open_source(slices, OPTIONS)
    file.parent.rmdir()
    with pytest.raises(CheckpointError, match="1 of 8 slices are missing: 5"):
        open_source(slices, OPTIONS)
    (slices / STRATEGY_FILE).unlink()
    with pytest.raises(CheckpointError, match="1 of 8 slices are missing: 5"):
        open_source(slices, OPTIONS)


def test_the_newest_save_that_all_ranks_have_is_taken(tmp_path, source, arrays, assert_whole):
    slices = export(source, tmp_path / "slices", FOUR)
    for rank in range(4):
        file = slices / f"rank_{rank}" / "pangu_alpha.ckpt"
        content = file.read_bytes()
        for name in ("pangu-1_10.ckpt", "pangu-1_9.ckpt", f"pangu-{1 + (rank > 0)}_20.ckpt"):
            (file.parent / name).write_bytes(content)
        (file.parent / "pangu-1_30_breakpoint.ckpt").write_bytes(b"")
        file.unlink()
    found = assert_whole(slices, arrays, OPTIONS)
    assert found.notes[0] == "several saves; took the newest that all ranks have, pangu-1_10"
    for rank in range(4):
        (slices / f"rank_{rank}" / "pangu-1_10.ckpt").unlink()
        (slices / f"rank_{rank}" / "pangu-1_9.ckpt").unlink()
    with pytest.raises(CheckpointError, match="no save PREFIX-EPOCH_STEP that all ranks have"):
        open_source(slices, OPTIONS)


def test_a_strategy_of_another_run_is_refused(tmp_path, source):
    slices = export(source, tmp_path / "slices", FOUR)
    other = export(source, tmp_path / "other", ParallelPlan(tp=2))
    with pytest.raises(CheckpointError, match="4 slices, but the strategy is of 2 devices"):
        open_source(slices, OpenOptions(model=MODEL, strategy=other / STRATEGY_FILE))
    with pytest.raises(CheckpointError, match="no strategy file there"):
        open_source(slices, OpenOptions(model=MODEL, strategy=tmp_path / "nowhere.ckpt"))
    with pytest.raises(CheckpointError, match="does not fit"):
        export(source, tmp_path / "third", ParallelPlan(tp=3))


def test_what_only_the_user_knows_is_not_blamed_on_the_strategy(tmp_path, source):
    slices = export(source, tmp_path / "slices", FOUR)
    with pytest.raises(CheckpointError, match="its number of heads is unknown; name the model") as caught:
        open_source(slices, OpenOptions())
    assert "strategy" not in str(caught.value)


@pytest.fixture(scope="module")
def another(arrays, tmp_path_factory):
    """A source of other numbers, of a step of choice."""

    def make(step):
        path = tmp_path_factory.mktemp("another") / f"step_{step:08d}"
        changed = {stem: {name: a + 1 for name, a in group.items()} for stem, group in arrays.items()}
        write_checkpoint(path, changed, Manifest(step, 70, {"model": to_mapping(MODEL)}))
        return open_source(path)

    return make


@pytest.mark.parametrize("form", ["ckpt", "safetensors"])
@pytest.mark.parametrize("strategy", [True, False])
def test_a_rank_of_another_save_is_refused(tmp_path, source, another, form, strategy):
    file = f"rank_1/pangu_alpha.{form}"
    slices = export(source, tmp_path / "slices", FOUR, form=form)
    if not strategy:
        (slices / STRATEGY_FILE).unlink()
    later = export(another(9), tmp_path / "later", FOUR, form=form)
    (slices / file).write_bytes((later / file).read_bytes())
    with pytest.raises(CheckpointError, match=rf"{file}: its step_num is 9, that of .*rank_0/.* 7"):
        open_source(slices, OPTIONS)
    same = export(another(7), tmp_path / "same", FOUR, form=form)  # of another run, at the same step
    (slices / file).write_bytes((same / file).read_bytes())
    with pytest.raises(CheckpointError, match=rf"different saves.*\n.*{file}: its \S+ is not the others'"):
        open_source(slices, OPTIONS)


def renamed(slices, name):
    """Every rank's file under the name that `name` gives for the rank."""
    for rank in range(4):
        file = slices / f"rank_{rank}" / "pangu_alpha.ckpt"
        file.rename(file.with_name(f"{name(rank)}.ckpt"))
    return slices


def test_the_rank_may_be_in_the_prefix(tmp_path, source, arrays, assert_whole):
    """The official code's prefix ends with the rank; _1 is what MindSpore adds at a new start."""
    slices = renamed(export(source, tmp_path / "slices", FOUR), lambda rank: f"2_6b_{rank}_1-1_7")
    for rank in range(4):
        (slices / f"rank_{rank}" / f"2_6b_{rank}-1_5.ckpt").write_bytes(b"of an earlier start")
    found = assert_whole(slices, arrays, OPTIONS)
    assert found.notes[0] == "several saves; took the newest that all ranks have, 2_6b_{rank}_1-1_7"


def test_saves_of_two_starts_are_not_mixed(tmp_path, source, another):
    slices = renamed(export(source, tmp_path / "slices", FOUR), lambda rank: "pangu-1_7")
    again = export(another(7), tmp_path / "again", FOUR)
    for rank in (0, 2, 3):
        file = again / f"rank_{rank}" / "pangu_alpha.ckpt"
        file.rename(slices / f"rank_{rank}" / "pangu_1-1_7.ckpt")
    with pytest.raises(
        CheckpointError, match="rank 0 has .* several names, pangu-1_7.ckpt, pangu_1-1_7.ckpt"
    ):
        open_source(slices, OPTIONS)
    for rank in (0, 2, 3):
        (slices / f"rank_{rank}" / "pangu-1_7.ckpt").unlink()
    with pytest.raises(CheckpointError, match="no save PREFIX-EPOCH_STEP that all ranks have"):
        open_source(slices, OPTIONS)


def test_a_strategy_that_does_not_belong_is_named(tmp_path, source):
    slices = export(source, tmp_path / "slices", FOUR)
    official = export(source, tmp_path / "official", FOUR, "official") / STRATEGY_FILE
    with pytest.raises(
        CheckpointError, match="says of none of its tensors how it is cut: it names adam_m.back"
    ):
        open_source(slices, OpenOptions(model=MODEL, strategy=official))
    wider = export(source, tmp_path / "wider", ParallelPlan(dp=4)) / STRATEGY_FILE
    with pytest.raises(
        CheckpointError, match=f"placed by the strategy {STRATEGY_FILE}: does it belong to these slices?"
    ):
        open_source(slices, OpenOptions(model=MODEL, strategy=wider))
    for content in (b"", (slices / "rank_0" / "pangu_alpha.ckpt").read_bytes()):
        (tmp_path / "no_strategy.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match="no_strategy.ckpt: no strategy file: it says of no param"):
            open_source(slices, OpenOptions(model=MODEL, strategy=tmp_path / "no_strategy.ckpt"))


def test_the_strategy_beside_is_found_by_any_way_to_the_folder(
    tmp_path, monkeypatch, source, arrays, assert_whole
):
    slices = export(source, tmp_path / "out" / "checkpoint", FOUR)
    beside = tmp_path / "out" / "strategy"
    beside.mkdir()
    (slices / STRATEGY_FILE).rename(beside / STRATEGY_FILE)
    (tmp_path / "link").symlink_to(slices)
    for folder, path in ((slices, "."), (slices / "rank_0", ".."), (tmp_path, "link")):
        monkeypatch.chdir(folder)
        found = assert_whole(path, arrays, OPTIONS)
        assert found.form.endswith(f"placed by the strategy {STRATEGY_FILE}"), path
        assert not any("official rule" in note for note in found.notes)
    (beside / STRATEGY_FILE).unlink()
    assert found.notes + ("no strategy file in the folder or beside it: the official rule is assumed",) == (
        assert_whole(slices, arrays, OPTIONS).notes
    )


def test_unified_files_need_no_strategy(tmp_path, source, arrays, assert_whole):
    export_unified(source, tmp_path / "unified", limits=QUIET)
    options = OpenOptions(model=MODEL, strategy=tmp_path / "strategy.ckpt")
    with pytest.raises(CheckpointError, match="unified safetensors, .* no strategy .* leave --strategy"):
        open_source(tmp_path / "unified", options)
    assert_whole(tmp_path / "unified", arrays, dataclasses.replace(options, shared=True))


def test_names_of_2023_and_caches(cpu, tmp_path, source, arrays):
    import mindspore as ms

    from pangu_alpha.checkpoint.foreign.mindspore.released import released_names

    path = tmp_path / "PanguAlpha.ckpt"
    saved = []
    for ours, (theirs, flip) in released_names(MODEL).items():
        for table in ("word_embedding", "position_embedding"):
            theirs = theirs.replace(f"backbone.{table}.", f"backbone.embedding.{table}.")
        array = arrays["model"][ours]
        saved.append({"name": theirs, "data": ms.Tensor(np.ascontiguousarray(array.T) if flip else array)})
    past = ms.Tensor(np.zeros((1, 4, 16, 32), np.float16))
    saved.append({"name": "backbone.blocks.0.attention.key_past", "data": past})
    ms.save_checkpoint(saved, str(path))
    found = open_source(path, OPTIONS)
    assert set(found.tensors["model"]) == set(arrays["model"])
    assert "left aside: backbone.blocks.0.attention.key_past" in found.notes
    saved.append({"name": "backbone.blocks.0.moe.weight", "data": past})
    path.unlink()
    ms.save_checkpoint(saved, str(path))
    with pytest.raises(CheckpointError, match="not of the official network .*: backbone.blocks.0.moe.weight"):
        open_source(path, OPTIONS)
