"""Batches read by MindSpore: a pure function of seed and place, whatever the batch size and the devices."""

from __future__ import annotations

import dataclasses
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config.data import DataConfig, SourceConfig
from pangu_alpha.data import batches
from pangu_alpha.data.batches import Batch, TrainingBatches, ValidationBatches
from pangu_alpha.data.manifest import Manifest, open_records
from pangu_alpha.data.order import window_at
from pangu_alpha.data.position import plan_table
from pangu_alpha.data.preprocess import preprocess
from pangu_alpha.data.records import COLUMN, ShardJob, write_shard
from pangu_alpha.data.windows import WindowCollation, make_batch, open_sources
from pangu_alpha.text.tokenizer import PanguTokenizer

SEED = 7


@pytest.fixture(scope="module")
def second(config, tmp_path_factory) -> str:
    """A second source: another file of the corpus."""
    output = str(tmp_path_factory.mktemp("second") / "records")
    preprocess(dataclasses.replace(config, inputs=config.inputs[3:4], output=output))
    return output


@pytest.fixture(scope="module")
def sources(records, second):
    config = DataConfig(train={"novel": SourceConfig(records, 0.7), "news": SourceConfig(second, 0.3)})
    return open_sources(config, seq_length=16, vocab_size=60)[0]


@pytest.fixture(scope="module")
def windows(sources) -> list[np.ndarray]:
    """All windows of each source in written order."""
    return [
        np.concatenate([np.c_[b["input_ids"], b["labels"][:, -1:]] for b in validation(source.records, 1)])
        for source in sources
    ]


def made(sources, *arguments, **place) -> TrainingBatches:
    return TrainingBatches(sources, WindowCollation.of(sources[0].records), *arguments, **place)


def validation(records, *arguments, **place) -> ValidationBatches:
    return ValidationBatches(records, WindowCollation.of(records), *arguments, **place)


def rows(stream: TrainingBatches, position: int, count: int) -> Batch:
    """The next `count` batches from a position, laid end to end."""
    taken = list(islice(stream.batches(position), count))
    return Batch.joined(taken)


def part(batch: Batch, start: int, end: int) -> Batch:
    """Some of a batch's rows."""
    fields = {name: array[start:end] for name, array in batch.fields.items()}
    return Batch(fields, batch.weights[start:end], batch.source_ids[start:end])


def same(left: Batch, right: Batch) -> bool:
    assert list(left.fields) == list(right.fields) and len(left.fields) == 5
    pairs = [(left[name], right[name]) for name in left.fields]
    pairs += [(left.weights, right.weights), (left.source_ids, right.source_ids)]
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def expected(sources, windows) -> Batch:
    """300 samples by the plainest code: several epochs of the smaller source."""
    taken = [0, 0]
    owners, ids = [], []
    for n in range(300):
        source = int(made(sources, 1, SEED).mixture(np.array([n]))[0][0])
        size = len(windows[source])
        ids.append(windows[source][window_at(taken[source], size, SEED, sources[source].name)])
        owners.append(source)
        taken[source] += 1
    return make_batch(np.stack(ids), np.array(owners), sources[0].records.manifest.vocabulary)


def test_the_stream_is_what_the_order_says(sources, expected):
    assert same(rows(made(sources, 10, SEED), 0, 30), expected)
    assert np.bincount(expected.source_ids).tolist() == [210, 90]


@pytest.mark.parametrize(("batch_size", "position"), [(4, 0), (7, 20), (25, 275), (1, 299)])
def test_any_batch_size_from_any_place_gives_the_same_samples(sources, expected, batch_size, position):
    count = (300 - position) // batch_size
    found = rows(made(sources, batch_size, SEED), position, count)
    end = position + count * batch_size
    assert same(found, part(expected, position, end))


def test_devices_share_a_batch_by_rank(sources, expected):
    streams = [made(sources, 2, SEED, rank=rank, world_size=3) for rank in range(3)]
    assert streams[0].samples_per_batch == 6
    parts = [list(islice(stream.batches(60), 4)) for stream in streams]
    together = [part[step] for step in range(4) for part in parts]
    merged = Batch.joined(together)
    assert same(merged, part(expected, 60, 84))


def test_ranks_and_batch_sizes_agree_on_a_changed_mixture(sources, windows):
    """21 samples at 0.7 / 0.3, then half of each: both go on with the window that comes next."""
    before = made(sources, 3, SEED)
    taken = np.bincount(rows(before, 0, 7).source_ids)
    halves = [dataclasses.replace(source, weight=1.0) for source in sources]
    found = []
    for batch_size, ranks in ((4, 1), (2, 3), (1, 4)):
        streams = [made(halves, batch_size, SEED, rank=rank, world_size=ranks) for rank in range(ranks)]
        for stream in streams:
            stream.resume(21, before.position)
        parts = [list(islice(stream.batches(21), 24 // batch_size // ranks)) for stream in streams]
        together = [part[step] for step in range(len(parts[0])) for part in parts]
        found.append(Batch.joined(together))
    assert all(same(found[0], other) for other in found[1:])
    for place, size in enumerate(map(len, windows)):
        mine = found[0]["input_ids"][found[0].source_ids == place]
        draws = range(taken[place], taken[place] + len(mine))
        order = [window_at(draw, size, SEED, sources[place].name) for draw in draws]
        assert len(mine) == 12 and np.array_equal(mine, windows[place][order][:, :-1])


def test_the_end_of_a_leg_is_no_seam(sources, expected, monkeypatch):
    monkeypatch.setattr(batches, "_LEG", 12)
    assert same(rows(made(sources, 5, SEED), 0, 60), expected)


def test_a_batch_may_be_larger_than_the_corpus(sources, expected):
    total = sum(source.records.manifest.windows for source in sources)
    assert total < 300
    assert same(rows(made(sources, 300, SEED), 0, 1), expected)


def test_seed_and_shuffle_decide_the_order(sources, windows, expected):
    other = rows(made(sources, 10, SEED + 1), 0, 30)
    assert np.array_equal(other.source_ids, expected.source_ids)
    assert not np.array_equal(other["input_ids"], expected["input_ids"])
    written = rows(made(sources[:1], 10, SEED, shuffle=False), 0, 3)
    assert np.array_equal(written["input_ids"], windows[0][:30, :-1])


def test_the_plan_names_the_sources(sources):
    plan = plan_table(made(sources, 10, SEED).position, 1000, 16)
    assert "novel" in plan and "70.00%" in plan and f"{300 * 16:,}" in plan


@pytest.mark.parametrize("world_size", [1, 2])
def test_validation_reads_everything_once(records, windows, world_size):
    opened = open_records(records)
    streams = [validation(opened, 8, rank=rank, world_size=world_size) for rank in range(world_size)]
    parts = [list(stream) for stream in streams]
    assert {len(part) for part in parts} == {len(streams[0])}
    assert len(streams[0]) == -(-len(windows[0]) // (8 * world_size))
    together = [part[step] for step in range(len(streams[0])) for part in parts]
    ids = np.concatenate([batch["input_ids"] for batch in together])
    mask = np.concatenate([batch["loss_mask"] for batch in together])
    count = len(windows[0])
    assert {batch["input_ids"].shape for batch in together} == {(8, 16)}
    assert np.array_equal(ids[:count], windows[0][:, :-1]) and mask[:count].all()
    assert len(ids) > count and not mask[count:].any()


def test_records_of_another_tokenizer_are_refused(records, vocab_file):
    digest = PanguTokenizer(vocab_file).digest
    config = DataConfig(train={"novel": SourceConfig(records)})
    open_sources(config, seq_length=16, vocab_size=60, tokenizer_digest=digest)
    with pytest.raises(ValueError, match="data.train.novel: .*(?s:.*)another tokenizer"):
        open_sources(config, seq_length=16, vocab_size=60, tokenizer_digest="0" * 64)


def test_sources_of_different_control_ids_do_not_mix(config, records, tmp_path):
    other = dataclasses.replace(config, output=str(tmp_path / "other"), end_of_document="<eot>")
    preprocess(other)
    mixed = DataConfig(train={"a": SourceConfig(records), "b": SourceConfig(other.output)})
    with pytest.raises(
        ValueError, match="data.train.b: its tokenizer or control ids differ.* documents end with <eo"
    ):
        open_sources(mixed, seq_length=16, vocab_size=60)


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_shard_is_refused_by_name(records, tmp_path, damage):
    folder = tmp_path / "records"
    shutil.copytree(records, folder)
    shard = folder / Manifest.read(folder).shards[1].data.name
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes({"truncated": content[:-1], "altered": content, "missing": b""}[damage])
    if damage == "missing":
        shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name}: {damage}"):
        open_sources(DataConfig(train={"a": SourceConfig(str(folder))}), seq_length=16, vocab_size=60)


def test_files_of_unequal_size_are_read_together(tmp_path):
    # MindSpore refuses files whose pages or headers differ in size.
    tokens = tmp_path / "a.tokens"
    np.arange(30_000 * 17, dtype="<i4").tofile(tokens)
    borders = [0, 3, 20_000, 30_000]
    files = [tmp_path / f"windows-{first}" for first in borders[:-1]]
    for first, last, file in zip(borders[:-1], borders[1:], files, strict=True):
        write_shard(ShardJob((tokens,), "<i4", 16, 6, first, last, file), lambda *_: None)
    wanted = np.array([29_999, 0, 3, 2, 19_999, 20_000])
    found = batches._read([str(file) for file in files], (COLUMN,), wanted, 4)
    read = np.concatenate([columns[COLUMN] for columns in found])
    assert np.array_equal(read, wanted[:, None] * 17 + np.arange(17))


def test_records_may_be_moved(records, windows, tmp_path):
    folder = Path(shutil.copytree(records, tmp_path / "elsewhere" / "renamed"))
    moved = np.concatenate([batch["input_ids"] for batch in validation(open_records(folder), 1)])
    assert np.array_equal(moved, windows[0][:, :-1])
