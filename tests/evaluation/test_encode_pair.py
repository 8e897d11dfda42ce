"""Where a continuation begins: after the ids that the context and the whole text have in common."""

from __future__ import annotations

import random

import pytest

from pangu_alpha.evaluation.encode_pair import PairEncoder
from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.text.vocabulary import train_vocabulary

END = 8


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A vocabulary with pieces of several characters, so that ids depend on where words end."""
    rng = random.Random(1)
    words = ["银行", "今天", "下调", "利率", "以后", "股市", "上涨", "中国", "人民", "不变", "的", "，", "。"]
    texts = ["".join(rng.choices(words, k=20)) for _ in range(200)]
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.model"
    train_vocabulary(texts, path, 50)
    return PanguTokenizer(path)


@pytest.mark.parametrize(
    ("context", "continuation"),
    [
        ("今天的利率：", "不变"),
        ("银行今天下调利", "率。"),
        ("中国人民", "银行"),
        ("利率\n", "下调"),
        ("股", "市上涨"),
    ],
)
def test_all_ids_after_the_common_beginning_count(tokenizer, context, continuation):
    encoder = PairEncoder(tokenizer, END)
    ((prefix, whole),) = encoder([(context, continuation)])
    alone, together = tokenizer.encode(context), tokenizer.encode(context + continuation)
    kept = next((n for n, (a, b) in enumerate(zip(alone, together, strict=False)) if a != b), len(alone))
    begun = [END] if kept == 0 else []
    assert (list(prefix), list(whole)) == ([*begun, *alone], [*begun, *together])
    assert encoder.pairs == 1 and encoder.moved == (kept < len(alone))


def test_borders_that_move_are_counted(tokenizer):
    encoder = PairEncoder(tokenizer, END)
    encoder([("今天的利率：", "不变"), ("利", "率下调")])
    encoder([("银行今天下调利", "率。")])
    assert tokenizer.encode("利率")[0] != tokenizer.encode("利")[0]  # what the next figure rests on
    assert (encoder.pairs, encoder.moved) == (3, 2)


def test_a_text_without_context_begins_with_the_end_of_a_document(tokenizer):
    ((prefix, whole),) = PairEncoder(tokenizer, END)([("", "利率")])
    assert prefix == (END,) and whole == (END, *tokenizer.encode("利率"))


def test_a_context_that_vanishes_counts_as_none(tokenizer):
    ((prefix, whole),) = PairEncoder(tokenizer, END)([("\t", "利率")])
    assert prefix == (END,) and whole[0] == END


def test_nothing_gives_nothing(tokenizer):
    assert PairEncoder(tokenizer, END)([]) == []
