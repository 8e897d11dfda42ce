"""The local engine: items, parts, what is made again, and what is refused."""

from __future__ import annotations

import json
import os

import corpus_toys
import numpy as np
import pyarrow.parquet as pq
import pytest

from pangu_alpha.corpus.engine import (
    DamagedError,
    LedgerError,
    LocalEngine,
    Work,
    file_path,
    is_done,
    part_of,
    perform,
    read_record,
    shuffle,
)
from pangu_alpha.corpus.engine.shuffle import equal_blocks, in_order, sorted_rows


def silent(*_):
    pass


def works(folder, function=corpus_toys.write_numbers, count=3, settings=None):
    return [Work(n, "web", str(folder), f"input {n}", function, settings, n + 1) for n in range(count)]


def parts(folder, exchange, numbers=None):
    numbers = range(exchange.partitions) if numbers is None else numbers
    return [Work(n, "", str(folder), "all", corpus_toys.write_rows, None, exchange) for n in numbers]


def items(folder, rows=5000, keys=300, others=0, count=4):
    return [
        Work(n, "", str(folder), f"rows {n}", corpus_toys.write_rows, None, (rows, keys, others))
        for n in range(count)
    ]


def digests(folder, count):
    return [next(iter(read_record(str(folder), n)["files"].values()))["sha256"] for n in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_items_leave_their_files_and_what_vouches_for_them(tmp_path, workers):
    engine, done = LocalEngine(workers), []
    engine.run(works(tmp_path), lambda items, _: done.append(items))
    engine.verify(works(tmp_path), silent)
    engine.close()
    assert sum(done) == 3
    for number in range(3):
        record = read_record(str(tmp_path), number)
        path = file_path(str(tmp_path), record, "numbers")
        assert pq.read_table(path)["n"].to_pylist() == [*range(number + 1)]
        file = record["files"]["numbers"]
        assert (file["rows"], file["bytes"]) == (number + 1, os.path.getsize(path))
        assert record["ledger"]["web"]["kept"]["documents"] == number + 1
    assert sorted(os.listdir(tmp_path))[:2] == ["part-00000.json", "part-00000.numbers.parquet"]


def test_an_item_is_done_for_one_input_only(tmp_path):
    (work,) = works(tmp_path, count=1)
    assert not is_done(work)
    perform(work)
    assert is_done(work)
    assert not is_done(Work(0, "web", str(tmp_path), "another", corpus_toys.write_numbers, None, 1))


def test_what_fails_leaves_nothing_that_counts(tmp_path):
    (work,) = works(tmp_path, count=1)
    perform(work)
    with pytest.raises(ValueError, match="item 0 cannot be read"):
        perform(works(tmp_path, corpus_toys.refuse, 1)[0])
    assert not is_done(work)
    perform(work)
    with pytest.raises(LedgerError, match=r"part-00000\.json: the ledger does not balance: in Count"):
        perform(works(tmp_path, corpus_toys.lose_one, 1)[0])
    assert not is_done(work)


def test_a_file_that_was_changed_later_is_seen(tmp_path):
    (work,) = works(tmp_path, count=1)
    perform(work)
    path = work.path("numbers.parquet")
    with open(path, "r+b") as stream:
        stream.seek(10)
        stream.write(b"x")
    with pytest.raises(
        DamagedError, match="it was changed or damaged after it was written. Remove that .json"
    ):
        LocalEngine(1).verify([work], silent)
    with open(work.record_path, "w") as stream:
        stream.write("{")
    with pytest.raises(DamagedError, match="is not JSON; remove it"):
        is_done(work)


def expected(sources, exchange, number):
    rows = np.concatenate([block for each in sources for block in corpus_toys.random_rows(each)])
    mine = rows[part_of(rows[:, 0], exchange.partitions) == number]
    return in_order(mine, 2)


@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("workers", [1, 2])
def test_rows_come_to_their_parts_in_order(tmp_path, workers, others):
    exchange, sources = corpus_toys.exchange(5, others), items(tmp_path, others=others)
    engine, done = LocalEngine(workers), []
    engine.exchange(sources, parts(tmp_path, exchange), lambda count, _: done.append(count))
    engine.close()
    assert sum(done) == 5 and os.listdir(tmp_path / "shuffle") == []
    for number in range(5):
        record = read_record(str(tmp_path), number)
        table = pq.read_table(file_path(str(tmp_path), record, "rows"))
        rows = np.stack([column.to_numpy() for column in table.columns], 1)
        assert np.array_equal(rows, expected(sources, exchange, number))
        assert record["facts"]["rows"] == len(rows) > 0


def test_runs_that_do_not_fit_are_merged_to_the_same_bytes(tmp_path, monkeypatch):
    exchange = corpus_toys.exchange(3)
    LocalEngine(1).exchange(items(tmp_path / "a"), parts(tmp_path / "a", exchange), silent)
    monkeypatch.setattr(shuffle, "_RUN_BYTES", 20_000)
    monkeypatch.setattr(shuffle, "_MERGE_BYTES", 10_000)
    monkeypatch.setattr(shuffle, "_LEAST_READ", 7)
    LocalEngine(1).exchange(items(tmp_path / "b"), parts(tmp_path / "b", exchange), silent)
    assert digests(tmp_path / "a", 3) == digests(tmp_path / "b", 3)


def test_a_merge_holds_no_more_than_it_may(tmp_path, monkeypatch):
    """One key that all rows have, the worst case, is spread over all runs."""
    monkeypatch.setattr(shuffle, "_MERGE_BYTES", 40_000)
    monkeypatch.setattr(shuffle, "_LEAST_READ", 16)
    exchange, sources = corpus_toys.exchange(1), items(tmp_path, rows=20_000, keys=1)
    spreads = [
        Work(n, "", str(tmp_path), "x", shuffle.spread, exchange, each) for n, each in enumerate(sources)
    ]
    for each in spreads:
        perform(each)
    blocks = [*sorted_rows([each.path("rows") for each in spreads], 0, 2)]
    assert sum(map(len, blocks)) == 80_000 and max(block.nbytes for block in blocks) <= 40_000
    assert np.array_equal(np.concatenate(blocks), expected(sources, exchange, 0))


@pytest.mark.parametrize("sizes", [[], [0], [3], [4], [5], [1, 9, 0, 2], [4, 4, 4], [20]])
def test_blocks_are_equal_however_they_come(monkeypatch, sizes):
    monkeypatch.setattr(shuffle, "BLOCK_ROWS", 4)
    rows = np.arange(2 * sum(sizes)).reshape(-1, 2)
    cut = np.split(rows, np.cumsum(sizes)[:-1]) if sizes else []
    blocks = [*equal_blocks(cut, 2)]
    assert [len(each) for each in blocks] == [4] * (len(rows) // 4) + [len(rows) % 4] * bool(len(rows) % 4)
    assert np.array_equal(np.concatenate([*blocks, rows[:0]]), rows)


def test_parts_are_those_of_the_lower_bits_only_if_told():
    key = np.array([-1, 0, 5, 2**62], np.int64)
    assert part_of(key, 4, mixed=False).tolist() == [3, 0, 1, 0]
    spread = np.bincount(part_of(np.arange(0, 64_000, 64), 8), minlength=8)
    assert spread.min() > 90


def test_rows_that_were_spread_before_are_not_read_again(tmp_path, monkeypatch):
    exchange, sources = corpus_toys.exchange(2), items(tmp_path)
    folder = str(tmp_path / "shuffle")
    perform(Work(0, "", folder, sources[0].digest, shuffle.spread, exchange, sources[0]))
    seen = []
    monkeypatch.setattr(
        "pangu_alpha.corpus.engine.local.perform_job", lambda work, _: seen.append(work) or perform(work)
    )
    LocalEngine(1).exchange(sources, parts(tmp_path, exchange), silent)
    assert [each.number for each in seen] == [1, 2, 3]


def test_a_record_is_json_that_others_can_read(tmp_path):
    perform(works(tmp_path, count=1)[0])
    assert json.loads((tmp_path / "part-00000.json").read_text())["input"] == "input 0"
