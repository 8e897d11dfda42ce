from __future__ import annotations

import json
import logging
import pickle
import random
import subprocess
import sys
from pathlib import Path

import jieba
import pytest
import sentencepiece

from pangu_alpha.text import tokenizer as module
from pangu_alpha.text.tokenizer import CONTROL_NAMES, PanguTokenizer

RELEASED = json.loads(Path(__file__).with_name("tokenizer_cases.json").read_text(encoding="utf-8"))
PIECES = [
    *CONTROL_NAMES,
    "<unk>",
    "＜eod＞",
    "<eod",
    ">",
    "▁<eod>",
    "\u2581",
    "\u2582",
    "\u2583",
    "▂<pad>▃",
    "话说天下大势，",
    "合久必分",
    "Hello",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "1.5-2%",
    "C++",
    "😀",
    "㐀",
    "鿖",
    "가",
    "……",
    "\ufeff",
    "\u200b",
    "\ue000",
    "ﷺ",
    "Ⅷ",
]


def random_text(draw: random.Random, most: int = 12) -> str:
    return "".join(draw.choice(PIECES) for _ in range(draw.randint(0, most)))


def official(model: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
    """The release's algorithm, word for word: cut, rename, join, encode."""
    words = [word.replace(" ", "\u2582").replace("\n", "\u2583") for word in jieba.cut(text, cut_all=False)]
    return model.encode(" ".join(words))


@pytest.fixture(params=["small", "released"])
def tokenizer(request: pytest.FixtureRequest) -> PanguTokenizer:
    jieba.setLogLevel(logging.WARNING)
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("case", RELEASED["cases"], ids=lambda case: repr(case["text"][:12]))
def test_released_cases(released, case):
    assert released.encode(case["text"]) == case["ids"]
    assert [released.piece_of(number) for number in case["ids"]] == case["pieces"]
    assert released.decode(case["ids"]) == case["decoded"]


def test_released_vocabulary(released):
    assert released.digest == RELEASED["model_sha256"]
    assert released.vocab_size == len(released) == 40000
    named = (released.sep_id, released.pad_id, released.eod_id, released.eot_id, released.unk_id)
    assert named == (5, 6, 8, 9, 0)
    assert released.control_ids == {1, 2, 5, 6, 7, 8, 9}
    assert [released.id_of(name) for name in CONTROL_NAMES] == [1, 2, 5, 6, 7, 8, 9]


def test_random_texts_give_the_official_ids(tokenizer):
    draw = random.Random(1)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.vocab_file))
    for _ in range(1000):
        text = random_text(draw)
        assert tokenizer.encode(text) == official(model, text), repr(text)


def test_text_never_gives_a_control_id(tokenizer):
    draw = random.Random(2)
    texts = [random_text(draw) for _ in range(1000)]
    texts += [name * 3 for name in CONTROL_NAMES] + [" ".join(CONTROL_NAMES), "\n".join(CONTROL_NAMES)]
    for ids in tokenizer.encode_batch(texts):
        assert tokenizer.control_ids.isdisjoint(ids)


def test_space_and_line_feed_have_pieces_of_their_own(tokenizer):
    space, newline = tokenizer.id_of("\u2582"), tokenizer.id_of("\u2583")
    assert tokenizer.encode(" ")[-1] == tokenizer.encode("\u2582")[-1] == space
    assert tokenizer.encode("\n")[-1] == tokenizer.encode("\r\n")[-1] == newline
    text = " 汉朝 天下\n\n三国 \n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_batch_equals_one_by_one(tokenizer, monkeypatch):
    draw = random.Random(3)
    texts = ["", *(random_text(draw, 6) for _ in range(200)), "", "a\r", "\nb"]
    expected = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == expected
    monkeypatch.setattr(module, "_MAX_CHARACTERS", 64)
    assert tokenizer.encode_batch(iter(texts)) == expected
    assert tokenizer.encode_batch([]) == []


def test_parts_of_a_huge_text_give_the_ids_of_the_whole(tokenizer, monkeypatch):
    text = "话说天下大势，分久必合，合久必分。 \r\nHello world\n" * 40
    expected = tokenizer.encode(text)
    monkeypatch.setattr(module, "_MAX_CHARACTERS", 100)
    assert tokenizer.encode(text) == expected
    assert tokenizer.decode(tokenizer.encode("汉" * 250)) == "汉" * 250


def test_prompts_of_nothing_or_of_unknown_characters(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    ids = tokenizer.encode("😀㐀가")
    assert tokenizer.unk_id in ids
    assert "\u2047" in tokenizer.decode(ids)


def test_lone_surrogates_are_read_as_the_replacement_character(tokenizer):
    assert tokenizer.encode("汉\ud83d朝") == tokenizer.encode("汉\ufffd朝")
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


def test_ids_outside_the_vocabulary_are_refused(tokenizer):
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"token id {wrong} is outside"):
            tokenizer.decode([0, wrong])


def test_unknown_names_are_refused_with_the_nearest(small):
    with pytest.raises(ValueError, match="did you mean '<eod>'"):
        small.id_of("<eodd>")
    with pytest.raises(ValueError, match="controls: <s>"):
        small.id_of("魑魅魍魉")


def test_survives_pickling(small):
    copy = pickle.loads(pickle.dumps(small))
    assert copy.digest == small.digest and copy.encode("三国") == small.encode("三国")


def test_bad_vocabulary_files(tmp_path, small):
    with pytest.raises(FileNotFoundError, match="cli.fetch vocab"):
        PanguTokenizer(tmp_path / "none.model")
    whole = small.vocab_file.read_bytes()
    for content, message in (
        (b"", "empty"),
        (b"not a model", "not a whole"),
        (whole[: len(whole) // 2], "not a whole"),
    ):
        path = tmp_path / "bad.model"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            PanguTokenizer(path)


def test_vocabulary_without_the_control_pieces_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["天下 大势 分久必合"] * 20),
        model_prefix=str(tmp_path / "plain"),
        vocab_size=13,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match="lacks <sep>, <pad>, <mask>, <eod>, <eot>"):
        PanguTokenizer(tmp_path / "plain.model")


def test_text_imports_no_mindspore():
    modules = ", ".join(
        f"pangu_alpha.text.{name}" for name in ("tokenizer", "vocabulary", "clean", "corpora")
    )
    script = f"import sys, {modules}; assert not {{'mindspore', 'pyarrow'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
