"""The ledger against an independent count: of the inputs, of every stage, and of the final files."""

from __future__ import annotations

import json
import random
from collections import Counter

import pyarrow.parquet as pq
import pytest
import small_corpus

from pangu_alpha.corpus.stages import STAGES, result_of

CHEAP = 4
ALL = 100
SIDES = ("documents", "characters", "bytes")


def draw(seed, folder):
    """A random configuration over random inputs, some lines of which are broken."""
    pick = random.Random(seed)
    inputs = folder / "in"
    for path in small_corpus.write_inputs(inputs, pick.randint(5, 40), pick.randint(3, 6), seed):
        lines = path.read_text("utf-8").splitlines()
        for _ in range(pick.randint(0, 3)):
            lines.insert(
                pick.randint(0, len(lines)), pick.choice(["{", '{"text": ""}', '{"text": "短"}', ""])
            )
        path.write_text("\n".join(lines) + "\n", "utf-8")
    kinds = [None, "encyclopedia", "books", "news", "public", "common_crawl"]
    budget = pick.choice([None, None, 2000])
    sources = {
        pick.choice(["common_crawl", "web"]): {"inputs": [str(inputs / "web-*")], "kind": pick.choice(kinds)},
        pick.choice(["news", "papers"]): {"inputs": [str(inputs / "news-*")], "tokens": budget},
    }
    return small_corpus.config(
        inputs,
        folder / "out",
        sources=sources,
        profile=pick.choice(["pangu-alpha", "strict", "none"]),
        item_bytes=pick.choice([3000, 20_000, 1 << 20]),
        partitions=pick.choice([1, 2, 5]),
        seed=pick.randint(0, 9),
        near_duplicates={
            "bands": pick.choice([1, 10, 20]),
            "rows": pick.choice([1, 5, 10]),
            "shingle_characters": pick.choice([1, 5]),
            "threshold": pick.choice([0.0, 0.5, 0.74, 1.0]),
        },
    )


def total(ledgers, key):
    return Counter({side: sum(each[key][side] for each in ledgers) for side in SIDES})


def check(config, output):
    """Checks all identities by sums of our own."""
    result = result_of(str(output))
    before = None
    for name in (stage.name for stage in STAGES if stage.text):
        (folder,) = output.glob(f"stages/{name}-*")
        records = [json.loads(path.read_text()) for path in sorted(folder.glob("part-*.json"))]
        ledgers = [ledger for record in records for ledger in record["ledger"].values()]
        dropped = [count for each in ledgers for count in each["dropped"].values()]
        gone = Counter({side: sum(count[side] for count in dropped) for side in SIDES})
        came, kept, out = (total(ledgers, key) for key in ("in", "kept", "out"))
        assert came == kept + gone and kept["documents"] == out["documents"]
        removed = sum(sum(each["removed"].values()) - each["added"] for each in ledgers)
        assert kept["characters"] == out["characters"] + removed
        assert before is None or came == before
        sums = result["ledger"][name].values()
        assert total(sums, "in") == came and total(sums, "out") == out
        before = out
    texts = [text for path in output.glob("*/part-*") for text in pq.read_table(path)["text"].to_pylist()]
    assert len(texts) == before["documents"] and sum(map(len, texts)) == before["characters"]
    assert sum(len(text.encode()) for text in texts) == before["bytes"]
    first = result["ledger"]["extract"].values()
    lines = [
        line for path in output.with_name("in").iterdir() for line in path.read_text().split("\n") if line
    ]
    assert total(first, "in")["documents"] == len(lines)
    assert set(result["ledger"]["extract"]) == set(config.sources)


@pytest.mark.parametrize("seed", range(CHEAP))
def test_every_document_and_character_is_accounted_for(tmp_path, seed):
    config = draw(seed, tmp_path)
    small_corpus.run(config)
    check(config, tmp_path / "out")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(CHEAP, ALL))
def test_in_a_hundred_configurations(tmp_path, seed):
    config = draw(seed, tmp_path)
    small_corpus.run(config)
    check(config, tmp_path / "out")
