from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from pangu_alpha.files.shown import quoted, shown, shown_json, shown_name


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("名\t\n", "名\t\n"),
        ("\x1b[31mred\x07\x9b", r"\x1b[31mred\x07\x9b"),
        ("a\rb\u202ec\ud800", r"a\x0db\u202ec\ud800"),
    ],
)
def test_control_characters_are_escaped(text, seen):
    assert shown(text) == seen


def test_log_messages_are_escaped_and_below_the_level_silent():
    code = (
        "import logging; from pangu_alpha.files.shown import log_to_stderr; log_to_stderr(logging.WARNING); "
        "log = logging.getLogger('x'); log.info('no'); log.warning('%s: read', 'a\\x1b[2J')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "a\\x1b[2J: read\n"


def test_long_texts_are_cut_in_the_middle():
    assert shown("a" * 50 + "b" * 50, 20) == "a" * 10 + " ... " + "b" * 5
    assert len(quoted("a" * 10_000)) <= 80


def test_references_to_references_are_cut_before_they_are_written():
    value = "lol"
    for _ in range(60):
        value = [value] * 10
    began = time.monotonic()
    assert len(quoted(value)) <= 80
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("value", ["a", 1, 1.5, None, True, [1, "a"], {"a": [1]}, (1, 2)])
def test_short_values_are_their_repr(value):
    assert quoted(value) == repr(value)


def test_a_number_of_many_digits_is_described():
    assert quoted(10**5000) == "a whole number of 16,610 bits"


def test_a_name_stays_on_its_line():
    assert shown_name("a\tb\nc\x1b") == r"a\tb\nc\x1b"
    assert len(shown_name("x" * 10_000)) == 200


def test_json_is_read_as_before():
    text = json.dumps({"名\x9b": "a\u202eb\x7f"}, indent=1, ensure_ascii=False)
    assert json.loads(shown_json(text)) == json.loads(text)
    assert shown_json(text) == '{\n "名\\u009b": "a\\u202eb\\u007f"\n}'
