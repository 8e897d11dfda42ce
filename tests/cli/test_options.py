"""The types of options: what each takes, and in which words it refuses."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from pangu_alpha.cli import options

LONG = "9" * 5000


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("positive", "1", 1),
        ("natural", "0", 0),
        ("port", "65535", 65535),
        ("positives", "3,4", (3, 4)),
        ("naturals", "0,3,1", (0, 3, 1)),
        ("number", "-1e-5", -1e-5),
        ("positive_number", "0.5", 0.5),
        ("nonnegative_number", "0", 0.0),
        ("fraction", "1", 1.0),
        ("byte_size", "2GB", 2 * 10**9),
        ("byte_size", "1.5 mb", 1500000),
        ("byte_size", "7", 7),
        ("byte_size", "3k", 3000),
        ("byte_size", "120e6", 120000000),
        ("byte_size", "1.2E2MB", 120000000),
        ("path_text", "a~b", "a~b"),
        ("user_path", "a//b", Path("a/b")),
    ],
)
def test_right_words_are_taken(kind, text, value):
    found = getattr(options, kind)(text)
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        *(("positive", text, "is not a whole number of at least 1") for text in ("0", "-1", "x", "1e3", "")),
        *(("positive", text, "is not a whole number") for text in (LONG, str(2**63), "²", "1.0")),
        ("natural", "-1", "'-1' is not a whole number of at least 0"),
        ("port", "65536", "'65536' is not a whole number from 1 to 65535"),
        *(("positives", text, "is not a whole number of at least 1") for text in ("3,,4", "0", "3,x", "")),
        *(("naturals", text, "is not a whole number of at least 0") for text in ("3,,4", "-1", "3,x", "")),
        ("naturals", "0,1,0", "'0,1,0' names a number twice"),
        *(("number", text, "is not a finite number") for text in ("nan", "inf", "1e400", "x", LONG)),
        *(("positive_number", text, "is not a number above 0") for text in ("0", "-1", "-0.0", "1e-400")),
        *(("positive_number", text, "is not a finite number") for text in ("nan", "inf", "1e400")),
        ("nonnegative_number", "-1e-9", "is not a number of at least 0"),
        *(("fraction", text, "is not a share above 0 and of at most 1") for text in ("0", "1.01", "-1")),
        *(
            ("byte_size", text, "is not a size such as 2GB")
            for text in ("0", "-1", "x", "nan", "1e99", LONG + "GB")
        ),
        ("path_text", "", "'' is no path"),
        ("user_path", "$NO_SUCH_VARIABLE_HERE/x", "has no value for"),
    ],
)
def test_wrong_words_are_refused_in_words(kind, text, words):
    with pytest.raises(ArgumentTypeError, match=words) as refused:
        getattr(options, kind)(text)
    assert len(str(refused.value)) < 200
