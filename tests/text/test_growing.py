"""Text given out id by id: every split of stop texts and of characters, in the same time for every id."""

from __future__ import annotations

import itertools

import pytest

from pangu_alpha.text.growing import GrowingText
from pangu_alpha.text.tokenizer import PanguTokenizer


class Pieces:
    """Ids are places in a list of texts."""

    additive = True

    def __init__(self, texts):
        self.texts, self.longest = texts, 0

    def decode(self, ids):
        ids = list(ids)
        self.longest = max(self.longest, len(ids))
        return "".join(self.texts[n] for n in ids)


class Bytes:
    """Ids are bytes of UTF-8; a space at the beginning of a text is left out, as by SentencePiece."""

    additive = False
    longest = 0

    def decode(self, ids):
        ids = list(ids)
        self.longest = max(self.longest, len(ids))
        return bytes(ids).decode("utf-8", "replace").removeprefix(" ")


def splits(text):
    """Every way to divide a text."""
    for borders in itertools.product((False, True), repeat=len(text) - 1):
        parts, start = [], 0
        for place, border in enumerate(borders, 1):
            if border:
                parts.append(text[start:place])
                start = place
        yield [*parts, text[start:]]


@pytest.mark.parametrize(
    ("text", "stops", "expected", "stop"),
    [
        ("天下abcab大势", ["abcab"], "天下", "abcab"),
        ("ababac", ["abac"], "ab", "abac"),
        ("aaab。", ["aab"], "a", "aab"),
        ("甲：x\n乙：y", ["\n"], "甲：x", "\n"),
        ("甲乙丙丁戊", ["丙丁戊", "乙丙"], "甲", "乙丙"),
        ("甲乙丙丁", ["乙丙戊", "丁丁"], "甲乙丙丁", None),
        ("abcdabc", ["abcde", "bcdb"], "abcdabc", None),
    ],
)
def test_a_stop_text_is_found_at_every_split_and_nothing_of_it_is_given_out(text, stops, expected, stop):
    for parts in splits(text):
        grown, given, stopped_at = GrowingText(Pieces(parts), stops), "", None
        for number in range(len(parts)):
            given += grown.add(number)
            assert expected.startswith(given)
            if grown.stopped:
                stopped_at = number
                break
        given += grown.take(final=True)
        if stop is not None:  # with the id that completes it, and not later
            end = min(text.index(each) + len(each) for each in stops if each in text)
            assert len("".join(parts[:stopped_at])) < end <= len("".join(parts[: stopped_at + 1]))
        one = len(parts) == 1 or stop is None or not any(other in text for other in stops if other != stop)
        assert not one or (given == expected and grown.stop == stop)
        assert grown.take(final=True) == ""


def test_characters_are_whole_at_every_split():
    text = "天\U00020bb7 é\n"
    grown, given = GrowingText(Bytes(), ()), []
    for byte in text.encode():
        given.append(grown.add(byte))
        assert "\ufffd" not in given[-1]
    assert "".join(given) == text and given[:4] == ["", "", "天", ""]


def test_a_character_that_never_ends_is_given_out_at_the_end():
    grown = GrowingText(Bytes(), ())
    assert [grown.add(byte) for byte in b"a\xe5\xa4"] == ["a", "", ""]
    assert grown.take(final=True) == "\ufffd" and grown.take(final=True) == ""


def test_stop_texts_of_bytes():
    for stop, text in (("下大", "天下大势"), (" b", "a b"), ("势", "天下大势")):
        grown, given = GrowingText(Bytes(), (stop,)), ""
        for byte in text.encode():
            given += grown.add(byte)
            if grown.stopped:
                break
        assert given == text[: text.index(stop)] and grown.stop == stop


@pytest.mark.parametrize("tokenizer", [Pieces([*"天下大势"] * 1000), Bytes()])
def test_a_new_id_takes_the_same_time_however_long_the_text_is(tokenizer):
    grown = GrowingText(tokenizer, ("大势已去",))
    ids = range(4000) if tokenizer.additive else "天下大势".encode() * 300
    for token in ids:
        grown.add(token)
        assert len(grown._held) <= 4
    assert tokenizer.longest <= 8


def test_bytes_that_never_become_a_character_do_not_pile_up():
    tokenizer = Bytes()
    grown = GrowingText(tokenizer)
    given = "".join(grown.add(0xE5) for _ in range(1000))
    assert len(given) > 900 and {*given} == {"\ufffd"} and tokenizer.longest < 20


def test_update_takes_all_ids_and_uses_the_new_ones():
    grown = GrowingText(Pieces([*"天下大势"]), ("势",))
    grown.update([0])
    grown.update([0, 1, 2])
    assert grown.take() == "天下大" and not grown.stopped
    grown.update([0, 1, 2, 3])
    assert grown.stopped and grown.take() == ""


def test_vocabularies_know_whether_ids_can_be_decoded_one_by_one(tmp_path):
    import sentencepiece

    from pangu_alpha.text.vocabulary import _USER_DEFINED, train_vocabulary

    texts = ["天下大势分久必合合久必分" * 3, "周末七国分争并入于秦" * 3]
    assert train_vocabulary(texts, tmp_path / "own.model", 28).additive
    with open(tmp_path / "bytes.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=file,
            vocab_size=300,
            byte_fallback=True,
            user_defined_symbols=list(_USER_DEFINED),
            minloglevel=2,
            hard_vocab_limit=False,
            pad_id=-1,
        )
    tokenizer = PanguTokenizer(tmp_path / "bytes.model")
    assert not tokenizer.additive
    text = "天下🙂é大势"
    ids = tokenizer.encode(text)
    grown = GrowingText(tokenizer)
    given = [grown.add(token) for token in ids]
    assert "".join(given) + grown.take(final=True) == tokenizer.decode(ids) == text
    assert "🙂" in given and not any("\ufffd" in piece for piece in given)
