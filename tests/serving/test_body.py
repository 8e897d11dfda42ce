"""The body of a request is read strictly, and whatever is wrong with it is an error of the client."""

from __future__ import annotations

import pytest

from pangu_alpha.serving.wire.body import parse_body
from pangu_alpha.serving.wire.errors import ApiError


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b'{"a": 1, "a": 2}', "key 'a' twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of thousands of digits"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "more than 32 deep"),
        (b"[" * 200000, "deep"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 0xff at offset 7)"),
        (b'{"a": "\\ud800"}', "unpaired surrogate"),
        (b'{"a": ', "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "an object was expected, not [1]"),
    ],
)
def test_what_python_would_accept_or_repair_is_refused(content, words):
    with pytest.raises(ApiError) as error:
        parse_body(content)
    assert error.value.status == 400 and words in error.value.message
    assert error.value.json()["error"]["code"] == "invalid_json"


def test_pairs_of_surrogates_are_characters_and_32_levels_are_read():
    assert parse_body(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    deep = parse_body(b'{"a": ' + b"[" * 31 + b"]" * 31 + b"}")
    for _ in range(31):
        deep = next(iter(deep.values())) if isinstance(deep, dict) else deep[0]
    assert deep == []
