"""corpus.py: run from a YAML, what it prints and refuses, and its result in preprocess.py."""

from __future__ import annotations

import json

import pytest
import yaml

from pangu_alpha.cli.corpus import main
from pangu_alpha.cli.preprocess import main as preprocess
from pangu_alpha.data.manifest import Manifest
from pangu_alpha.text.vocabulary import train_vocabulary

SENTENCE = "滚滚长江东逝水，浪花淘尽英雄。是非成败转头空，青山依旧在，几度夕阳红。"


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.model"
    train_vocabulary([SENTENCE, SENTENCE[::-1]] * 20, path, 50)
    return str(path)


@pytest.fixture
def config(tmp_path):
    """A YAML of two sources, with a copy and a page that is too short."""
    numbers = "零一二三四五六七八九"
    for name, count in (("crawl", 8), ("news", 3)):
        texts = [f"第{numbers[n]}回\n{SENTENCE * 6}{numbers[n] * 40}{name}{'又' * n}。" for n in range(count)]
        texts += [texts[0], "短文。"]
        lines = [json.dumps({"text": text, "url": f"http://{name}/{n}"}) for n, text in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    values = {
        "sources": {
            "common_crawl": {"inputs": [str(tmp_path / "crawl.jsonl")]},
            "news": {"inputs": [str(tmp_path / "news.jsonl")]},
        },
        "output": str(tmp_path / "out"),
        "near_duplicates": {"threshold": 1.0},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "c.yaml"


def test_a_corpus_is_built_explained_mixed_and_goes_into_preprocess(config, tmp_path, vocab_file, capsys):
    assert main(["run", "--config", str(config), "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert "common_crawl: 10 documents in, 8 documents" in said.out and "exact_duplicate" in said.out
    assert "filter        characters " in said.out and "extract: 100%" in said.err
    out = str(tmp_path / "out")
    assert main(["explain", out, "--url", "http://crawl/9"]) == 0
    assert "characters" in capsys.readouterr().out
    assert main(["mix", out, "--profile", "pangu-1tb", "--records", "r"]) == 0
    mixture = yaml.safe_load(capsys.readouterr().out)["data"]["train"]
    assert mixture["common_crawl"] == {"records": "r/common_crawl", "weight": 62.81} and len(mixture) == 2
    records = str(tmp_path / "records")
    words = ["--vocabulary", vocab_file, "--output", records, "--seq-length", "16", "--workers", "1"]
    assert preprocess(["--input", f"{out}/*/part-*.parquet", "--no-clean", *words]) == 0
    assert Manifest.read(records).documents == 8 + 4


def test_an_interrupted_run_goes_on_and_keys_can_be_changed(config, tmp_path, capsys):
    assert main(["run", "--config", str(config), "--until", "filter", "--workers", "1"]) == 0
    assert "done up to filter" in capsys.readouterr().out
    other = ["run", "--config", str(config), "--workers", "1", "profile=none", "partitions=2"]
    assert main(other) == 0
    said = capsys.readouterr()
    assert "normalise: runs again, since " in said.err and "settings.profile." in said.err
    assert "common_crawl: 10 documents in, 8 documents" in said.out  # the short text is in news, too


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["partitons=4"], "partitons: unknown key; did you mean 'partitions'?"),
        (["--engine", "spark", "--workers", "2"], "--workers: is for --engine local"),
        (["--master", "local[2]"], "--master: is for --engine spark"),
        (["output="], "output"),
    ],
)
def test_what_does_not_fit_is_said(config, words, said):
    with pytest.raises(ValueError) as error:
        main(["run", "--config", str(config), *words])
    assert said in str(error.value)


def test_questions_to_what_is_no_corpus(tmp_path):
    with pytest.raises(ValueError, match="holds no finished corpus"):
        main(["mix", str(tmp_path), "--profile", "pangu-1tb"])
    with pytest.raises(ValueError, match="'pangu-2tb' is no mixture; did you mean 'pangu-1tb'"):
        main(["mix", str(tmp_path), "--profile", "pangu-2tb"])
    with pytest.raises(ValueError, match="name the output of the run"):
        main(["explain", "--id", "5"])
    with pytest.raises(ValueError, match="without a run"):
        main(["explain", str(tmp_path), "--text-file", str(tmp_path / "x")])
