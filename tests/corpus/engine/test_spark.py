"""The Spark engine: the same bytes as the local one, on local[2] and on a standalone cluster."""

from __future__ import annotations

import os
import sys

import corpus_toys
import pytest
import spark_cluster

from pangu_alpha.corpus.engine import LocalEngine, Work, read_record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(spark_cluster.missing()), reason=spark_cluster.missing() or "-"),
]


@pytest.fixture
def loopback(monkeypatch, toys_for_executors):
    """Spark listens on loopback only, and its Python is this one."""
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)


@pytest.fixture(params=["local[2]", pytest.param("cluster", marks=pytest.mark.long)])
def engine(request, tmp_path, loopback):
    from pangu_alpha.corpus.engine.spark import SparkEngine

    cluster = None
    if request.param == "cluster":
        cluster = spark_cluster.Cluster(tmp_path / "cluster")
    engine = SparkEngine(cluster.address if cluster else request.param)
    yield engine
    engine.close()
    if cluster:
        cluster.stop()


def works(folder, function=corpus_toys.write_numbers, count=5):
    return [Work(n, "web", str(folder), f"input {n}", function, None, n + 1) for n in range(count)]


def parts(folder, exchange):
    return [
        Work(n, "", str(folder), "all", corpus_toys.write_rows, None, exchange)
        for n in range(exchange.partitions)
    ]


def sources(folder, rows=30_000, keys=4000, others=0, count=4):
    return [
        Work(n, "", str(folder), f"rows {n}", corpus_toys.write_rows, None, (rows, keys, others))
        for n in range(count)
    ]


def records(folder, count):
    return [read_record(str(folder), number) for number in range(count)]


def test_spark_makes_what_the_local_engine_makes(tmp_path, engine):
    done = []
    local = LocalEngine(1)
    here, there = tmp_path / "here", tmp_path / "there"
    local.run(works(here / "items"), lambda *_: None)
    engine.run(works(there / "items"), lambda count, _: done.append(count))
    assert records(there / "items", 5) == records(here / "items", 5) and sum(done) == 5
    engine.verify(works(there / "items"), lambda *_: None)
    for name, exchange, keys in (
        ("many", corpus_toys.exchange(7), 4000),
        ("wide", corpus_toys.exchange(3, others=30), 50),
        ("empty parts", corpus_toys.exchange(12), 3),
    ):
        others = exchange.others
        local.exchange(sources(here, 5000, keys, others), parts(here / name, exchange), lambda *_: None)
        done.clear()
        engine.exchange(
            sources(there, 5000, keys, others),
            parts(there / name, exchange),
            lambda count, _: done.append(count),
        )
        count = exchange.partitions
        assert records(there / name, count) == records(here / name, count) and sum(done) >= count
    with pytest.raises(ValueError, match="^item 0 cannot be read$"):
        engine.run(works(there / "bad", corpus_toys.refuse), lambda *_: None)
    left = [each for each in parts(there / "many", corpus_toys.exchange(7)) if each.number in (2, 5)]
    for each in left:
        os.remove(each.record_path)
    engine.exchange(sources(there, 5000, 4000), left, lambda *_: None)
    assert records(there / "many", 7) == records(here / "many", 7)
