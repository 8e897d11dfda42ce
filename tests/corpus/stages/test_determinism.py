"""Every final file has the same bytes, whatever the number of workers, of partitions, and the engine."""

from __future__ import annotations

import sys

import pytest
import small_corpus
import spark_cluster
import yaml

from pangu_alpha.cli.corpus import main

PARTITIONS = (4, 64)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    small_corpus.write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def reference(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("reference")
    small_corpus.run(small_corpus.config(inputs, output))
    return small_corpus.digests(output)


def test_the_reference_has_files_of_both_sources(reference):
    assert len(reference) > 6 and {name.split("/")[0] for name in reference} == {"common_crawl", "news"}


@pytest.mark.parametrize("workers, partitions", [(2, 4), (1, 64), (2, 1)])
def test_workers_and_partitions_change_no_byte(inputs, reference, tmp_path, workers, partitions):
    small_corpus.run(small_corpus.config(inputs, tmp_path, partitions=partitions), workers)
    assert small_corpus.digests(tmp_path) == reference


def test_rounds_of_stars_find_what_one_task_finds(inputs, reference, tmp_path, monkeypatch):
    """Above 50 million edges no task may hold all of them."""
    monkeypatch.setattr("pangu_alpha.corpus.stages.near.IN_MEMORY", 0)
    small_corpus.run(small_corpus.config(inputs, tmp_path))
    assert small_corpus.digests(tmp_path) == reference
    assert len([*tmp_path.glob("stages/components-*/large-*")]) >= 2


@pytest.mark.long
@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_combination_on_this_machine(inputs, reference, tmp_path, workers, partitions):
    small_corpus.run(small_corpus.config(inputs, tmp_path, partitions=partitions), workers)
    assert small_corpus.digests(tmp_path) == reference


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = spark_cluster.Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.mark.long
@pytest.mark.skipif(bool(spark_cluster.missing()), reason=spark_cluster.missing() or "-")
@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize("kind", ["local[2]", "cluster"])
def test_spark_writes_the_same_bytes(inputs, reference, tmp_path, monkeypatch, request, kind, partitions):
    """The real cluster is a master and two workers on loopback, with executors of their own."""
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    master = request.getfixturevalue("cluster").address if kind == "cluster" else kind
    output = tmp_path / "out"
    values = small_corpus.settings(inputs, output, partitions=partitions)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    words = ["run", "--config", str(tmp_path / "c.yaml"), "--engine", "spark", "--master", master]
    assert main(words) == 0
    assert small_corpus.digests(output) == reference


@pytest.mark.long
@pytest.mark.skipif(bool(spark_cluster.missing()), reason=spark_cluster.missing() or "-")
def test_a_run_may_begin_on_one_engine_and_end_on_the_other(inputs, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    output = tmp_path / "out"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(small_corpus.settings(inputs, output)))
    words = ["run", "--config", str(tmp_path / "c.yaml"), "--engine"]
    assert main([*words, "local", "--until", "exact"]) == 0
    assert main([*words, "spark", "--master", "local[2]", "--until", "edges"]) == 0
    made = {path: path.stat().st_mtime_ns for path in output.glob("stages/*/part-*")}
    assert main([*words, "local", "--workers", "1"]) == 0
    assert small_corpus.digests(output) == reference
    assert all(path.stat().st_mtime_ns == moment for path, moment in made.items())
