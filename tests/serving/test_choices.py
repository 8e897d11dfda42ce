"""A growing continuation: stop texts at every split, and pieces that belong to their tokens."""

from __future__ import annotations

import itertools

import pytest

from pangu_alpha.serving.wire.choices import Choice, Piece, prompt_piece
from pangu_alpha.text.growing import new_text


class Letters:
    """Facts of a vocabulary whose ids are texts of one to four letters."""

    def __init__(self, texts) -> None:
        self.texts = [*dict.fromkeys(texts)]

    def new_text(self):
        return new_text(self)

    additive = True

    def decode(self, ids):
        return "".join(self.texts[token] for token in ids)


class Bytes(Letters):
    """Facts of a vocabulary whose ids are the bytes of UTF-8."""

    additive = False

    def __init__(self):
        super().__init__([])

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")


def splits(text, longest=4):
    """All ways to cut a text into tokens."""
    if not text:
        yield []
    for size in range(1, min(longest, len(text)) + 1):
        for rest in splits(text[size:], longest):
            yield [text[:size], *rest]


def grown(texts, stops, reason="length"):
    facts = Letters(texts)
    choice = Choice(facts, {stop: stop for stop in stops})
    pieces = []
    for text in texts:
        pieces.append(choice.add(facts.texts.index(text)))
        if choice.stopped:
            return pieces
    return [*pieces, choice.end(reason)]


@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("abxyzcd", ["xyz"], "ab"),
        ("xyzab", ["xyz"], ""),
        ("abxyxyzc", ["xyz"], "abxy"),
        ("aaaabcc", ["aab"], "aa"),
        ("abcdefg", ["def", "cdx", "ef"], "abc"),
        ("abcabcd", ["bcd"], "abca"),
        ("abcdef", ["xyz"], "abcdef"),
        ("abcxy", ["xyz"], "abcxy"),
        ("a\n\nb", ["\n"], "a"),
    ],
)
def test_a_stop_text_is_found_at_every_split_and_never_shown(text, stops, left):
    for texts in splits(text):
        pieces = grown(texts, stops)
        assert "".join(piece.text for piece in pieces) == left, texts
        stopped = any(stop in text for stop in stops)
        assert pieces[-1].reason == ("stop" if stopped else "length")
        assert (pieces[-1].stop is not None) == stopped
        shown = ""
        for piece in pieces:  # nothing is shown that a stop text would have to take back
            shown += piece.text
            assert left.startswith(shown)
        tokens = [shown for piece in pieces for shown in piece.tokens]
        assert "".join(shown.text for shown in tokens) == left
        for shown in tokens:
            assert left[shown.offset :].startswith(shown.text)


def test_text_comes_at_once_where_no_stop_can_begin():
    pieces = grown(["ab", "cd", "xy", "q"], ["xyz"])
    assert [piece.text for piece in pieces] == ["ab", "cd", "", "xyq", ""]


def test_every_piece_holds_whole_tokens():
    for texts in itertools.islice(splits("abxyabxy"), 200):
        for piece in grown(texts, ["xyz"]):
            assert piece.text == "".join(shown.text for shown in piece.tokens)


def test_the_stop_of_the_client_is_named_not_the_form_of_the_vocabulary():
    choice = Choice(Letters([","]), {",": "，"})
    assert choice.add(0) == Piece("", (), "stop", "，")


def test_a_character_of_several_ids_is_shown_with_its_last_one():
    choice = Choice(Bytes(), {"丁": "丁"})
    ids = "甲乙丙".encode()
    pieces = [choice.add(token) for token in ids] + [choice.add("丁".encode()[0]), choice.end("length")]
    assert [piece.text for piece in pieces] == ["", "", "甲", "", "", "乙", "", "", "丙", "", ""]
    shown = [token for piece in pieces for token in piece.tokens]
    assert [(token.token, token.offset) for token in shown[:4]] == [
        (ids[0], 0),
        (ids[1], 0),
        (ids[2], 0),
        (ids[3], 1),
    ]
    assert len(shown) == 10
    echo = prompt_piece(list(ids), Bytes(), [(0.0, None)] * 8, None)
    assert echo.text == "甲乙丙" and [token.text for token in echo.tokens[:3]] == ["", "", "甲"]


def test_the_prompt_of_an_echo(facts):
    ids = facts.encode("曹操")
    scores = [(-1.5, ((5, -0.5),)) for _ in ids[1:]]
    piece = prompt_piece(ids, facts, scores, "anything")
    assert piece.text == facts.decode(ids) == "".join(shown.text for shown in piece.tokens)
    assert piece.tokens[0].logprob is None and piece.tokens[1].logprob == -1.5
    assert prompt_piece(ids, facts, None, "，as written") == Piece("，as written")
    assert prompt_piece(ids, facts, None, None).text == facts.decode(ids)
