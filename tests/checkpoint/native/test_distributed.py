"""Many ranks save one checkpoint: whole or absent, never of two starts of a job, found alike by all."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.native import durable
from pangu_alpha.checkpoint.native.distributed import (
    LocalParts,
    SharedParts,
    agree_on_attempt,
    check_shared,
    open_part,
    part_name,
)
from pangu_alpha.checkpoint.native.durable import scratch_path
from pangu_alpha.checkpoint.native.format import Manifest, read_checkpoint, read_manifest
from pangu_alpha.checkpoint.native.store import CheckpointStore, resolve_resume
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.tensors import whole

RANKS = 4
PLAN = {"dp": RANKS}
ATTEMPT = durable.writer_name()
ROWS = np.arange(RANKS * 6, dtype=np.float32).reshape(2 * RANKS, 3)  # two rows a rank


def part_of(rank, step, fill=0.0):
    """A rank's tensors and manifest: its two rows of w and of its moment; the last rank writes b, too."""
    start, tensors = {"start": [2 * rank, 0], "shape": [2 * RANKS, 3]}, ROWS[2 * rank : 2 * rank + 2] + fill
    arrays = {"model": {"w": tensors}, "optimizer": {"adam_m.w": -tensors}}
    slices = {"model": {"w": start}, "optimizer": {"adam_m.w": start}}
    if rank == RANKS - 1:
        arrays["model"]["b"] = np.full(3, fill, np.float32)
        slices["model"]["b"] = {"start": [0], "shape": [3]}
    return arrays, Manifest(step, samples=8 * step, config={"parallel": PLAN}, slices=slices)


def shared(root, rank, attempt=ATTEMPT, patience=20.0, **rule):
    return SharedParts(CheckpointStore(root, **rule), rank, RANKS, attempt, patience)


def save(root, step, fill=0.0, **options):
    with ThreadPoolExecutor(RANKS) as pool:
        saves = [
            pool.submit(shared(root, rank, **options).save, *part_of(rank, step, fill))
            for rank in range(RANKS)
        ]
    return [each.result() for each in saves][0]


def value(path, name="w", stem="model"):
    stored = open_source(path).tensors[stem][name]
    return read_box(stored, whole(stored.shape), name=name)


def test_parts_of_all_ranks_make_a_checkpoint(tmp_path):
    path = save(tmp_path, 10)
    assert [each.name for each in tmp_path.iterdir()] == ["step_00000010"] and path == tmp_path / path.name
    manifest = read_checkpoint(path).manifest
    assert (manifest.kind, manifest.step, manifest.samples) == ("slices", 10, 80)
    assert sorted(manifest.parts) == [part_name(rank) for rank in range(RANKS)]
    assert (value(path) == ROWS).all() and (value(path, "adam_m.w", "optimizer") == -ROWS).all()
    assert (value(path, "b") == np.zeros(3)).all()


def test_a_late_rank_is_named_and_nothing_appears(tmp_path):
    save(tmp_path, 1)
    for rank in (1, 3):
        shared(tmp_path, rank).save(*part_of(rank, 2))
    with pytest.raises(CheckpointError, match="1 of 4 parts are not there after 0 s: rank_00002"):
        shared(tmp_path, 0, patience=0.1).save(*part_of(0, 2))
    assert CheckpointStore(tmp_path).newest() == tmp_path / "step_00000001"


def test_parts_of_another_start_are_never_taken(tmp_path, caplog):
    dead = f"{2**22 + 1}-77@{ATTEMPT.partition('@')[2]}"  # no process has a number above 2^22
    for rank in (1, 2, 3):  # rank 0 was killed first
        shared(tmp_path, rank, attempt=dead).save(*part_of(rank, 5, fill=100.0))
    assert CheckpointStore(tmp_path).newest() is None and "never finished" in caplog.text
    path = save(tmp_path, 5)
    assert (value(path) == ROWS).all()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]  # what the dead left is gone


def test_leftovers_of_a_larger_plan_are_not_taken(tmp_path):
    path = save(tmp_path, 5)
    shutil.copytree(path / part_name(3), path / part_name(7))
    assert (value(path) == ROWS).all()
    assert sorted(read_checkpoint(path).manifest.parts)[-1] == part_name(3)


def test_a_step_saved_again_gives_way_only_to_the_whole(tmp_path):
    save(tmp_path, 5)
    with pytest.raises(CheckpointError, match="3 of 4 parts"):
        shared(tmp_path, 0, patience=0.05).save(*part_of(0, 5, fill=1.0))
    assert (value(tmp_path / "step_00000005") == ROWS).all()
    shutil.rmtree(scratch_path(tmp_path / "step_00000005"))
    assert (value(save(tmp_path, 5, fill=1.0)) == ROWS + 1).all()


def test_the_rule_counts_whole_checkpoints(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step, keep_last=2, keep_every=2)
    shared(tmp_path, 1).save(*part_of(1, 6))  # a part of an unfinished step
    save(tmp_path, 7, keep_last=2, keep_every=2)
    assert CheckpointStore(tmp_path).steps() == [2, 4, 5, 7]


def test_a_flip_in_any_file_is_found_and_named(tmp_path):
    path = save(tmp_path, 1)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    assert len(files) == 2 + 4 * RANKS
    for file in files:
        content = file.read_bytes()
        for place in {0, len(content) // 2, len(content) - 1}:
            flipped = bytearray(content)
            flipped[place] ^= 16
            file.write_bytes(flipped)
            with pytest.raises(CheckpointError, match=file.name) as caught:
                read_checkpoint(path)
            assert file.parent == path or file.parent.name in str(caught.value)
            assert CheckpointStore(tmp_path).newest() is None
        file.write_bytes(content)
    read_checkpoint(path)


def test_a_missing_part_and_a_part_of_another_save_are_refused(tmp_path):
    path, other = save(tmp_path / "one", 1), save(tmp_path / "two", 1, fill=1.0)
    shutil.rmtree(path / part_name(2))
    with pytest.raises(CheckpointError, match="rank_00002: missing"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="rank_00002: missing"):
        open_source(path)
    shutil.copytree(other / part_name(2), path / part_name(2))
    with pytest.raises(CheckpointError, match=r"rank_00002/manifest.json: .* of another save"):
        read_checkpoint(path)


def test_a_newer_version_is_refused(tmp_path):
    from pangu_alpha.checkpoint.native.tensor_file import checksum

    path = save(tmp_path, 1)
    for folder in (path / part_name(1), path):
        text = json.dumps({**json.loads((folder / "manifest.json").read_text()), "version": 2}).encode()
        (folder / "manifest.json").write_bytes(text)
        (folder / "COMPLETE").write_text(f"xxh3_128 {checksum(text)} manifest.json\n")
        with pytest.raises(CheckpointError, match="format version 2, this program reads 1"):
            read_checkpoint(path)


def test_all_ranks_find_the_same_and_share_the_reading(crowd, tmp_path, monkeypatch):
    for step in (1, 2, 3):
        save(tmp_path, step, keep_last=3)
    damaged = tmp_path / "step_00000003" / part_name(3) / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4])  # only rank 3 looks at it
    found = crowd(RANKS).run(lambda group: CheckpointStore(tmp_path).newest(group))
    assert found == [tmp_path / "step_00000002"] * RANKS
    from pangu_alpha.checkpoint.native import format

    read = []
    deep = format.find_damage
    monkeypatch.setattr(
        format, "find_damage", lambda file, *rest, **d: read.append(file) or deep(file, *rest, **d)
    )
    store = CheckpointStore(tmp_path)
    crowd(RANKS).run(lambda group: resolve_resume(str(tmp_path / "step_00000002"), store, group))
    assert len(read) == len(set(read)) == 2 * RANKS  # each file once


def test_ranks_agree_on_the_attempt(crowd, tmp_path):
    assert set(crowd(RANKS).run(agree_on_attempt)) == {ATTEMPT}


def test_storage_that_is_not_shared_is_noticed(crowd, tmp_path):
    crowd(RANKS).run(lambda group: check_shared(tmp_path / "all", "a", group))
    assert not [*(tmp_path / "all").iterdir()]
    with pytest.raises(CheckpointError, match=r"not shared: ranks 2, 3 do not see .*storage=local"):
        crowd(RANKS).run(lambda group: check_shared(tmp_path / f"node_{group.rank // 2}", "a", group))


def local(root, rank, attempt="one", **rule):
    """Two ranks on each of two nodes."""
    return LocalParts(CheckpointStore(root / f"node_{rank // 2}", **rule), rank, attempt, PLAN)


def save_local(root, step, ranks=range(RANKS), fill=0.0, **options):
    for rank in ranks:
        local(root, rank, **options).save(*part_of(rank, step, fill))


def newest_local(crowd, root):
    steps = crowd(RANKS).run(lambda group: local(root, group.rank).newest(group))
    assert len({path and path.parent.name for path in steps}) == 1, steps
    return steps


def test_node_local_parts_are_resumed_where_all_have_them(crowd, tmp_path, caplog):
    assert newest_local(crowd, tmp_path) == [None] * RANKS
    save_local(tmp_path, 1)
    save_local(tmp_path, 2, ranks=(0, 1, 2))  # killed before the last
    found = newest_local(crowd, tmp_path)
    assert found[3] == tmp_path / "node_1" / "step_00000001" / part_name(3)
    save_local(tmp_path, 2, ranks=(3,), attempt="two")  # another start must not fill the gap
    assert newest_local(crowd, tmp_path) == found
    save_local(tmp_path, 2, attempt="two", fill=1.0)
    source = open_part(newest_local(crowd, tmp_path)[3])
    assert (read_box(source.tensors["model"]["b"], whole((3,))) == 1.0).all()
    weights = tmp_path / "node_0" / "step_00000002" / part_name(1) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert newest_local(crowd, tmp_path) == found and "passed over" in caplog.text


def test_node_local_parts_are_put_together_by_their_folders(tmp_path):
    save_local(tmp_path, 3)
    nodes = [tmp_path / "node_0", tmp_path / "node_1"]
    stored = open_source(nodes).tensors["model"]["w"]
    assert (read_box(stored, whole(stored.shape)) == ROWS).all()
    with pytest.raises(CheckpointError, match="rank_00002, rank_00003"):
        open_source(nodes[:1])
    with pytest.raises(CheckpointError, match="storage=local, or put all nodes' folders together"):
        read_manifest(nodes[0] / "step_00000003")


def test_node_local_parts_stay_until_all_ranks_have_a_newer_one(tmp_path):
    parts = local(tmp_path, 0, keep_last=1)
    for step in (1, 2, 3):
        parts.save(*part_of(0, step))
    assert parts.store.steps() == [1, 2, 3]  # nobody knows whether another rank has more than step 1
    parts.settled = 2
    parts.save(*part_of(0, 4))
    assert parts.store.steps() == [2, 3, 4]


def test_a_killed_replacement_of_a_local_part_is_undone(crowd, tmp_path):
    save_local(tmp_path, 1)
    part = local(tmp_path, 0).part(1)
    part.rename(part.with_name(f"{part.name}.aside"))
    assert newest_local(crowd, tmp_path)[0] == part and part.is_dir()
    shutil.copytree(part, part.with_name(f"{part.name}.aside"))
    save_local(tmp_path, 1, fill=2.0)
    assert [each.name for each in part.parent.iterdir() if "aside" in each.name] == []


def test_local_parts_of_another_plan_are_refused(crowd, tmp_path):
    save_local(tmp_path, 1)
    other = replace(local(tmp_path, 0), plan={"dp": 2})
    with pytest.raises(CheckpointError, match="the run's is {'dp': 2}; put all nodes' folders together"):
        crowd(1).run(other.newest)
    assert local(tmp_path, 1).part(1).is_dir()


@pytest.mark.parametrize("damage", ["flip", "absent", "plan"])
def test_no_rank_waits_for_one_that_cannot_use_its_part(crowd, tmp_path, damage):
    save_local(tmp_path, 1)
    file = local(tmp_path, 1).part(1) / "model.safetensors"
    if damage == "flip":
        file.write_bytes(file.read_bytes()[:-1] + b"\7")
    elif damage == "absent":
        shutil.rmtree(file.parent)

    def verified(group):
        parts = local(tmp_path, group.rank)
        if damage == "plan" and group.rank == 1:
            parts = replace(parts, plan={"dp": 2})
        with pytest.raises(CheckpointError) as caught:
            parts.verified(parts.part(1), group)
        return str(caught.value)

    said = crowd(RANKS).run(verified)
    assert {"flip": "damaged", "absent": "no such folder", "plan": "of the plan"}[damage] in said[1]
    assert all("ranks 1 cannot use their parts" in said[rank] for rank in (0, 2, 3))


def test_a_part_of_another_plan_on_one_rank_ends_all(crowd, tmp_path):
    save_local(tmp_path, 1)

    def newest(group):
        parts = replace(local(tmp_path, group.rank), plan={"dp": 2} if group.rank == 2 else PLAN)
        with pytest.raises(CheckpointError) as caught:
            parts.newest(group)
        return str(caught.value)

    said = crowd(RANKS).run(newest)
    assert "but the run's is {'dp': 2}" in said[2]
    assert all("ranks 2 cannot use their parts" in said[rank] for rank in (0, 1, 3))


def test_a_failed_part_leaves_the_last_checkpoint(tmp_path, monkeypatch, caplog):
    save(tmp_path, 1)

    def full(path):
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(CheckpointError, match="not written: No space left"):
        shared(tmp_path, 2).save(*part_of(2, 2))
    monkeypatch.undo()
    assert CheckpointStore(tmp_path).newest() == tmp_path / "step_00000001"


def test_an_empty_part_counts(tmp_path):
    def parts(rank):
        arrays, manifest = part_of(rank, 1)
        return ({}, replace(manifest, slices={})) if rank == 1 else (arrays, manifest)

    with ThreadPoolExecutor(RANKS) as pool:
        [*pool.map(lambda rank: shared(tmp_path, rank).save(*parts(rank)), range(RANKS))]
    path = Path(tmp_path / "step_00000001")
    assert sorted(each.name for each in (path / part_name(1)).iterdir()) == ["COMPLETE", "manifest.json"]
    read_checkpoint(path)


def test_parts_behind_links_are_never_removed(tmp_path, caplog):
    """A rank's part that is a link loses the link; a step that is a link keeps all that lies in it."""
    parts = local(tmp_path, 0, keep_last=1)
    for step in (1, 2):
        parts.save(*part_of(0, step))
    far = tmp_path / "far"
    parts.store.path(1).rename(far)
    parts.store.path(1).symlink_to(far)
    parts.part(2).rename(tmp_path / "part")
    parts.part(2).symlink_to(tmp_path / "part")
    parts.settled = 3
    for step in (3, 4):
        parts.save(*part_of(0, step))
    assert (far / part_name(0) / "COMPLETE").is_file() and (tmp_path / "part" / "COMPLETE").is_file()
    assert parts.store.steps() == [1, 3, 4] and parts.store.path(1).is_symlink()
    assert "step_00000001: a link, left with all in it; remove it by hand" in caplog.text
    assert "rank_00000: a link, removed; what it points to" in caplog.text and "(None)" not in caplog.text
