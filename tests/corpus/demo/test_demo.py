from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from pangu_alpha.config.corpus import load_corpus_config
from pangu_alpha.corpus.demo import PERSONAL, confusion, fates, planted, write_demo
from pangu_alpha.corpus.engine import LocalEngine
from pangu_alpha.corpus.stages import build_corpus


def build(config):
    engine = LocalEngine(1)
    try:
        build_corpus(load_corpus_config(str(config)), engine, lambda *_: lambda *_: None, print)
    finally:
        engine.close()


def final_texts(folder):
    files = sorted((folder / "corpus" / "common_crawl").glob("part-*.parquet"))
    return [text for path in files for text in pq.read_table(path)["text"].to_pylist()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    build(write_demo(folder, small=True))
    return folder


def test_every_planted_page_has_the_fate_of_its_kind(demo):
    found = confusion(demo / "answers.jsonl", fates(demo / "corpus"))
    assert found.wrong == {}, found.table()
    assert sum(found.counts.values()) == len(list(planted(small=True))) + 1
    assert found.counts["cookie notice again", "exact_duplicate"] == 20


def test_what_is_left_is_simplified_and_masked(demo):
    texts = final_texts(demo)
    assert len(texts) == len(set(texts))
    assert not any(number in text for text in texts for number in PERSONAL)
    assert sum("<身份证号>" in text and "<手机号>" in text for text in texts) == 1
    assert not any(character in text for text in texts for character in "為這來們説說")
    assert not any("首页" in text or "版权所有" in text for text in texts)


def test_the_files_of_the_demo_depend_on_nothing(tmp_path):
    for name in ("a", "b"):
        write_demo(tmp_path / name, small=True)
    for path in sorted((tmp_path / "a" / "web").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / "web" / path.name).read_bytes()


def test_a_wrong_fate_is_named(tmp_path):
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"url": "u", "kind": "k", "fates": ["kept"]}) + "\n")
    assert confusion(answers, {"u": "han_share"}).wrong == {"u": "han_share"}
    assert confusion(answers, {}).wrong == {"u": "not found"}
    assert "1 of 1" in confusion(answers, {}).table()
