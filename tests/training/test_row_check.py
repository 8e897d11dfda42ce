"""Rows that a rank should not read are known before the first step."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from pangu_alpha.config.data import DataConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import build
from pangu_alpha.data.batches import Batch, TrainingBatches
from pangu_alpha.data.windows import WindowCollation, open_sources
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.training.checks.rows import check_rows, digest_of, samples_of

B, POSITION = 2, 24
PLAN = ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2)


def with_field(batch, name, array):
    return replace(batch, fields={**batch.fields, name: array})


@pytest.fixture(scope="module")
def sources(data):
    return open_sources(build(DataConfig, data), seq_length=16, vocab_size=60)[0]


@pytest.fixture(scope="module")
def stream_of(sources):
    """Batches of a data coordinate, and its micro-batches of the step at POSITION."""

    def make(data, plan=PLAN, batch_size=B):
        collation = WindowCollation.of(sources[0].records)
        batches = TrainingBatches(sources, collation, batch_size, 1, rank=data, world_size=plan.dp)
        return batches, list(islice(batches.batches(POSITION), plan.micro_batches))

    return make


@pytest.fixture
def check(crowd, stream_of):
    """Checks the rows of all ranks, which `change` may exchange for others."""

    def run(change=lambda rank, rows: rows, plan=PLAN, streams=None):
        streams = streams or [stream_of(data, plan) for data in range(plan.dp)]

        def work(world):
            batches, rows = streams[Mesh.of(plan).coordinates(world.rank).data]
            try:
                return check_rows(world, plan, batches, POSITION, change(world.rank, rows))
            except ValueError as error:
                return str(error)

        said = set(crowd(plan.devices).run(work))
        assert len(said) == 1  # all stop, or none
        return said.pop()

    return run


def test_the_samples_of_a_coordinate_are_those_that_the_stream_reads(stream_of):
    for data in range(2):
        batches, rows = stream_of(data)
        read = batches.rows(samples_of(PLAN, B, POSITION, data))
        expected = Batch.joined(rows)
        assert len(read.fields) == 5 and read.fields.keys() == expected.fields.keys()
        for name, array in read.fields.items():
            np.testing.assert_array_equal(array, expected[name])
        np.testing.assert_array_equal(read.source_ids, expected.source_ids)


def test_any_number_of_rows_is_read(stream_of):
    batches, _ = stream_of(0)
    total = int(batches._total)
    rows = batches.rows(np.arange(2 * total + 3))
    assert len(rows["input_ids"]) == 2 * total + 3 and len(rows.source_ids) == 2 * total + 3


def test_right_rows_pass(check):
    assert check() is None


def test_another_row_of_one_rank_is_named(check):
    def flipped(rank, rows):
        if rank != 5:
            return rows
        mask = rows[1]["loss_mask"].copy()
        mask[0, 3] = 1 - mask[0, 3]
        return [rows[0], with_field(rows[1], "loss_mask", mask)]

    said = check(flipped)
    assert said.startswith(
        "data: ranks 0 and 5 share data coordinate 0, so they must read the same rows, but"
    )


def test_a_stage_that_reads_the_other_coordinates_rows_is_named(check, stream_of):
    others = {rank: stream_of(0)[1] for rank in (6, 7)}
    assert check(lambda rank, rows: others.get(rank, rows)).startswith("data: ranks 2 and 6 share data coord")


def test_two_coordinates_that_read_the_same_rows_are_named(check, stream_of):
    """As with a reader that was made for rank 0 everywhere: its own numbers would agree with what it read."""
    first = stream_of(0)
    said = check(streams=[first, first])
    assert said.startswith(
        "data: ranks 2-3, 6-7 read rows that are those of another data coordinate, so some"
    )


def test_a_corpus_that_holds_its_windows_twice_is_no_fault(check, monkeypatch, caplog, stream_of):
    caplog.set_level("INFO")
    streams = [stream_of(data) for data in range(2)]
    same = streams[0][1]
    for batches, _ in streams:  # whatever the samples are, the corpus has this text there
        joined = Batch.joined(same)
        monkeypatch.setattr(batches, "rows", lambda samples, joined=joined: joined)
    assert check(lambda rank, rows: same, streams=streams) is None
    assert "the corpus holds them twice" in caplog.text


def test_the_digest_sees_every_array_and_their_order(stream_of):
    _, rows = stream_of(0)
    digests = {digest_of(rows), digest_of(rows[::-1])}
    for name in rows[0].fields:
        array = rows[0][name].copy()
        array.flat[-1] += 1
        digests.add(digest_of([with_field(rows[0], name, array), rows[1]]))
    assert len(digests) == 7
