"""Resuming a run: what is kept, what is made anew, what is refused, and that the ledger balances."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
import small_corpus

from pangu_alpha.config.corpus import CorpusConfig
from pangu_alpha.config.schema import ConfigError, build
from pangu_alpha.corpus.engine import DamagedError, LedgerError, items
from pangu_alpha.corpus.stages import RESULT, STAGES, result_of


@pytest.fixture
def inputs(tmp_path):
    small_corpus.write_inputs(tmp_path / "in", count=60, files=4)
    return tmp_path / "in"


@pytest.fixture
def config(inputs, tmp_path):
    return small_corpus.config(inputs, tmp_path / "out")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def moments(output, pattern="stages/*/part-*"):
    return {path: path.stat().st_mtime_ns for path in output.glob(pattern)}


def texts(output, source="*"):
    tables = [pq.read_table(path) for path in sorted(output.glob(f"{source}/part-*.parquet"))]
    return [text for table in tables for text in table["text"].to_pylist()]


def drops(output):
    """Documents dropped in all stages and sources, by reason."""
    total = Counter()
    for stage in result_of(str(output))["ledger"].values():
        for ledger in stage.values():
            total.update({reason: count["documents"] for reason, count in ledger["dropped"].items()})
    return total


def test_a_folder_stands_for_all_its_files(tmp_path, output):
    """Also for those whose names say nothing of text: what cannot be read is counted."""
    crawl = tmp_path / "crawl"
    (crawl / "more").mkdir(parents=True)
    (crawl / "page.html").write_text(
        "<html><body><p>天下大势，分久必合，合久必分。</p></body></html>", "utf-8"
    )
    (crawl / "more" / "text.txt").write_text("周末七国分争，并入于秦。", "utf-8")
    (crawl / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    sources = {"mine": {"inputs": [str(crawl)]}}
    small_corpus.run(build(CorpusConfig, {"sources": sources, "output": str(output), "profile": "none"}))
    assert sorted(texts(output)) == ["周末七国分争，并入于秦。", "天下大势，分久必合，合久必分。"]
    assert drops(output) == {"unknown_kind": 1}


def test_copies_go_and_the_rest_stays(inputs, output, config):
    small_corpus.run(config)
    given = [json.loads(line) for path in inputs.iterdir() for line in path.read_text().splitlines()]
    assert len(given) == 72
    kept = texts(output)
    assert len(set(kept)) == len(kept)
    dropped = drops(output)
    assert dropped["exact_duplicate"] == 6 and dropped["near_duplicate"] >= 5
    assert len(kept) + sum(dropped.values()) == len(given)
    sizes = [
        size for path in output.glob("*/part-*") for size in pq.read_table(path)["cluster_size"].to_pylist()
    ]
    # a document that was dropped before has not stood for a copy
    assert sum(sizes) == len(kept) + dropped["exact_duplicate"] + dropped["near_duplicate"]


def test_of_two_copies_that_of_the_better_source_is_kept(tmp_path, output):
    text = small_corpus.documents(10)[0] * 5
    for name in ("web-0", "news-0"):
        (tmp_path / "both").mkdir(exist_ok=True)
        (tmp_path / "both" / f"{name}.jsonl").write_text(json.dumps({"text": text}) + "\n")
    small_corpus.run(small_corpus.config(tmp_path / "both", output))
    assert not texts(output, "common_crawl") and len(texts(output, "news")) == 1


def test_a_second_start_makes_nothing_anew(output, config):
    small_corpus.run(config)
    before = moments(output), small_corpus.digests(output), (output / RESULT).stat().st_mtime_ns
    assert small_corpus.run(config) == []
    assert (moments(output), small_corpus.digests(output), (output / RESULT).stat().st_mtime_ns) == before


def test_a_run_ends_after_the_stage_that_is_named(output, config):
    small_corpus.run(config, until="filter")
    stages = {path.name.rpartition("-")[0] for path in output.glob("stages/*-*/")}
    assert stages >= {"extract", "normalise", "filter"} and "exact" not in stages
    with pytest.raises(ValueError, match="holds no finished corpus"):
        result_of(str(output))
    with pytest.raises(ValueError, match="'filtre' is no stage; did you mean 'filter'?"):
        small_corpus.run(config, until="filtre")
    small_corpus.run(config)
    assert result_of(str(output))["files"]


def test_only_the_items_that_are_missing_are_made(output, config):
    small_corpus.run(config)
    digests = small_corpus.digests(output)
    (folder,) = output.glob("stages/normalise-*")
    before = moments(output)
    (folder / "part-00001.json").unlink()
    small_corpus.run(config)
    changed = {path for path, moment in moments(output).items() if before[path] != moment}
    assert {path.parent.name for path in changed} == {folder.name} and small_corpus.digests(output) == digests
    assert {path.name.split(".")[0] for path in changed} == {"part-00001"}


def test_changed_settings_are_named_and_lead_to_a_folder_of_their_own(inputs, output, config):
    small_corpus.run(config)
    first = small_corpus.digests(output)
    other = small_corpus.config(inputs, output, near_duplicates={"threshold": 1.0, "bands": 5})
    notes = small_corpus.run(other)
    again = ["sign", "edges", "components", "decontaminate", "mix", "write"]
    assert [note.split(":")[0] for note in notes] == again
    names = "settings.near_duplicates.bands, settings.near_duplicates.threshold"
    assert f"since {names} changed since sign-" in notes[0]
    second = small_corpus.digests(output)
    assert second != first and len(result_of(str(output))["files"]) == len(second)
    small_corpus.run(config)  # the final files of the first settings are made again, all else is there
    assert small_corpus.digests(output) == first


def test_an_input_that_changed_is_refused_in_words(inputs, config):
    small_corpus.run(config, until="extract")
    path = inputs / "web-0.jsonl"
    path.write_text(path.read_text() + path.read_text())
    with pytest.raises(ValueError, match=r"(?s)begun with:.*web-0\.jsonl: has changed: .*restore them"):
        small_corpus.run(config)
    path.unlink()
    with pytest.raises(ValueError, match=r"(?s)web-0\.jsonl: has gone"):
        small_corpus.run(config)


def test_inputs_may_be_added_and_ids_stay(inputs, output, config):
    small_corpus.run(config)
    ids = {id for path in output.glob("*/part-*") for id in pq.read_table(path)["id"].to_pylist()}
    extract = moments(output, "stages/extract-*/part-*.text.parquet")
    (inputs / "news-00.jsonl").write_text(
        "\n".join(json.dumps({"text": text}) for text in small_corpus.documents(20, seed=5)) + "\n"
    )
    small_corpus.run(config)
    now = {id for path in output.glob("*/part-*") for id in pq.read_table(path)["id"].to_pylist()}
    assert len(now - ids) > 10 and len(ids - now) <= 1 and max(now) >> 32 == 4
    kept = [path for path, moment in moments(output, "stages/extract-*/part-*.text.parquet").items()
            if extract.get(path) == moment]  # fmt: skip
    assert len(kept) >= len(extract) - 2


def test_a_damaged_file_is_seen_before_it_is_read(output, config):
    small_corpus.run(config)
    (path,) = output.glob("stages/extract-*/part-00000.text.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"part-00000\.text\.parquet: is not the file that"):
        small_corpus.run(config)


def test_a_ledger_that_was_changed_is_seen(output, config):
    small_corpus.run(config)
    (path,) = output.glob("stages/filter-*/part-00000.json")
    record = json.loads(path.read_text())
    (ledger,) = record["ledger"].values()
    for side in ("in", "kept", "out"):
        ledger[side]["documents"] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(LedgerError, match="filter, news: .* came in, but .* left normalise"):
        small_corpus.run(config)


def test_a_budget_is_kept_to_and_the_rest_is_counted(inputs, output):
    sources = {"news": {"inputs": [str(inputs / "*.jsonl")], "tokens": 4000}}
    small_corpus.run(small_corpus.config(inputs, output, sources=sources))
    kept = sum(map(len, texts(output)))
    assert 3000 < kept <= 4000
    dropped = result_of(str(output))["ledger"]["write"]["news"]["dropped"]
    assert dropped["over_budget"]["documents"] > 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": {}}, "sources: empty"),
        ({"sources": {"stages": {"inputs": ["x"]}}}, "is the name of a folder of the output"),
        ({"sources": {"../x": {"inputs": ["x"]}}}, "becomes a folder's name"),
        ({"partitions": 0}, "partitions: 0 must lie in"),
        ({"partitons": 4}, "partitons: unknown key; did you mean 'partitions'?"),
        ({"profile": "pangu-alfa"}, "did you mean 'pangu-alpha'?"),
        ({"sources": {"a": {"inputs": ["/nowhere/*.warc"]}}}, "/nowhere"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_said(inputs, output, change, said):
    with pytest.raises((ConfigError, ValueError, OSError)) as error:
        small_corpus.run(small_corpus.config(inputs, output, **change))
    assert said in str(error.value)


def test_a_full_disk_is_an_error_and_the_next_start_goes_on(inputs, output, config, monkeypatch):
    """Here every write fails from some byte on; test_kills.py has a real small disk."""
    left = [30_000]
    real = items.HashingStream.write

    def limited(self, data):
        left[0] -= memoryview(data).nbytes
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(items.HashingStream, "write", limited)
    with pytest.raises(OSError, match="No space left on device"):
        small_corpus.run(config)
    assert not [*output.glob("stages/*/*.draft")]
    left[0] = 1 << 40
    small_corpus.run(config)
    fresh = small_corpus.config(inputs, output.with_name("fresh"))
    small_corpus.run(fresh)
    assert small_corpus.digests(output) == small_corpus.digests(output.with_name("fresh"))


def test_stages_are_those_of_the_documentation():
    assert [stage.name for stage in STAGES] == [
        "extract", "normalise", "filter", "exact", "models", "quality", "sign", "edges", "components",
        "decontaminate", "mix", "write",
    ]  # fmt: skip
    known = set()
    for stage in STAGES:
        assert known.issuperset(stage.needs)
        known.add(stage.name)


def test_an_encoding_that_is_none_is_refused(inputs, output):
    sources = {"mine": {"inputs": [str(inputs)], "reading": {"charset": "gbkk"}}}
    with pytest.raises(ConfigError, match="sources.mine.reading.charset: 'gbkk' is no encoding"):
        build(CorpusConfig, {"sources": sources, "output": str(output)})


def test_larger_items_leave_no_files_of_smaller_ones_to_be_read(inputs, output):
    """The folder of a stage holds the files of one way of cutting only."""
    for size in (1024, 1 << 20):
        small_corpus.run(small_corpus.config(inputs, output, item_bytes=size))
        stage = output / "stages" / result_of(str(output))["stages"]["filter"]
        rows = [pq.read_metadata(path).num_rows for path in stage.glob("part-*.measures.parquet")]
        assert sum(rows) == 72
