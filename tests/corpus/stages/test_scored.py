"""Models that are trained on the way, and evaluation sets that are taken out."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
import small_corpus

from pangu_alpha.corpus.stages import result_of

MENU = "首页 新闻 体育 娱乐 财经 科技 汽车 房产 教育 游戏 论坛 博客 登录 注册 收藏 帮助 关于我们 网站地图"


def write_pages(folder, make, count=12):
    folder.mkdir(parents=True)
    for number in range(count):
        paragraphs = "".join(f"<p>{make.sentence() * 3}</p>" for _ in range(6))
        links = "".join(f"<li><a href='/{n}'>{word}{number}</a></li>" for n, word in enumerate(MENU.split()))
        (folder / f"web-{number:02d}.html").write_text(
            f"<html><head><title>第{number}页</title></head><body><nav><ul>{links}</ul></nav>"
            f"<article>{paragraphs}</article><footer>{MENU}</footer></body></html>"
        )


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def records(output, stage):
    (folder,) = output.glob(f"stages/{stage}-*")
    return [json.loads(path.read_text()) for path in sorted(folder.glob("part-*.json"))]


def columns(output, stage, name):
    (folder,) = output.glob(f"stages/{stage}-*")
    tables = [pq.read_table(path) for path in sorted(folder.glob(f"part-*.{name}.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


def texts(output):
    return [row for path in output.glob("*/part-*") for row in pq.read_table(path)["text"].to_pylist()]


def test_models_are_trained_and_score_what_the_paper_scored(tmp_path, output):
    make = small_corpus.Maker(3)
    write_pages(tmp_path / "in", make)
    lines = [json.dumps({"text": make.document()}) for _ in range(20)]
    (tmp_path / "in" / "news-0.jsonl").write_text("\n".join(lines))
    sources = {
        "common_crawl": {"inputs": [str(tmp_path / "in" / "web-*")]},
        "news": {"inputs": [str(tmp_path / "in" / "news-*")]},
    }
    quality = {"spam": "train", "quality": "train", "perplexity_above": 1e9}
    config = small_corpus.config(tmp_path / "in", output, sources=sources, quality=quality)
    small_corpus.run(config)
    assert [sorted(each["files"]) for each in records(output, "models")] == [
        ["spam.npz"], ["quality.npz"], ["perplexity.npz"],
    ]  # fmt: skip
    assert records(output, "models")[0]["facts"]["examples"] >= 10
    rows = columns(output, "quality", "scores")
    crawl = [row for row in rows if row["id"] >> 32 != 0]  # news-0.jsonl is the first file
    assert crawl and all(0 <= row["spam"] <= 1 and 0 <= row["quality"] <= 1 for row in crawl)
    assert all(row["spam"] is None or row["spam"] != row["spam"] for row in rows if row["id"] >> 32 == 0)
    again = small_corpus.config(tmp_path / "in", output.with_name("b"), sources=sources, quality=quality)
    small_corpus.run(again, workers=2)
    assert small_corpus.digests(output.with_name("b")) == small_corpus.digests(output)


def test_a_model_that_a_run_has_left_can_be_given(tmp_path, output):
    make = small_corpus.Maker(3)
    write_pages(tmp_path / "in", make)
    sources = {"common_crawl": {"inputs": [str(tmp_path / "in" / "web-*")]}}
    first = small_corpus.config(tmp_path / "in", output, sources=sources, quality={"spam": "train"})
    small_corpus.run(first)
    (model,) = output.glob("stages/models-*/part-00000.spam.npz")
    quality = {"spam": str(model), "spam_above": 0.0}
    other = small_corpus.config(tmp_path / "in", output.with_name("b"), sources=sources, quality=quality)
    small_corpus.run(other)
    dropped = result_of(str(output.with_name("b")))["ledger"]["quality"]["common_crawl"]["dropped"]
    assert dropped["spam"]["documents"] > 0 and not texts(output.with_name("b"))


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        ({"spam": "train"}, "quality.spam: there is nothing to train on"),
        ({"quality": "train"}, "quality.quality: there is nothing to train on"),
        ({"perplexity_above": 5.0}, "quality.perplexity_above: there is nothing to count"),
        ({"spam": "/nowhere/model.npz"}, "/nowhere/model.npz"),
    ],
)
def test_what_a_model_cannot_be_trained_on_is_said(tmp_path, output, quality, said):
    small_corpus.write_inputs(tmp_path / "in", 20, 3)
    sources = {"common_crawl": {"inputs": [str(tmp_path / "in" / "*")]}}
    with pytest.raises((ValueError, OSError)) as error:
        small_corpus.run(small_corpus.config(tmp_path / "in", output, sources=sources, quality=quality))
    assert said in str(error.value)


def test_texts_of_evaluation_sets_are_cut_out_and_counted(tmp_path, output):
    make = small_corpus.Maker(4)
    question = make.sentence().strip() + make.sentence().strip()
    long = [make.document() for _ in range(3)]
    inside = f"{''.join(long)}{question}{''.join(reversed(long))}"
    (tmp_path / "in").mkdir()
    documents = [inside, question + make.sentence() * 4, *(make.document() for _ in range(10))]
    (tmp_path / "in" / "news-0.jsonl").write_text("\n".join(json.dumps({"text": each}) for each in documents))
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": question, "answers": ["甲", "乙"]}))
    config = small_corpus.config(
        tmp_path / "in",
        output,
        sources={"news": {"inputs": [str(tmp_path / "in" / "*")]}},
        evaluation_sets={"cmrc": {"inputs": [str(tmp_path / "set.jsonl")]}},
        profile="none",
    )
    small_corpus.run(config)
    kept = texts(output)
    assert len(kept) == 11 and not any(question in text for text in kept)
    ledger = result_of(str(output))["ledger"]["decontaminate"]["news"]
    assert ledger["dropped"]["contaminated"]["documents"] == 1 and ledger["changed"] == {"contaminated": 1}
    assert (
        ledger["removed"]["contaminated"] >= 400 + len(question) - 4
    )  # the end of the last sentence is no letter
    hits = columns(output, "decontaminate", "hits")
    assert {(hit["task"], hit["item"]) for hit in hits} == {("cmrc", "set.jsonl:1")} and len(hits) == 2
