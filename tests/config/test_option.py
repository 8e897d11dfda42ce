"""Declarations of fields: bounds in words, and what is refused in which words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pangu_alpha.config.keys import keys_of, yaml_word
from pangu_alpha.config.option import REQUIRED, Option, option
from pangu_alpha.config.schema import ConfigError, build, validate


@pytest.mark.parametrize(
    ("bounds", "words", "value", "said"),
    [
        ({"at_least": 1}, "at least 1", 0, "0 must be at least 1"),
        ({"at_least": 0}, "at least 0", -1, "-1 must not be negative"),
        ({"above": 0}, "above 0", 0.0, "0.0 must be positive"),
        ({"above": 1}, "above 1", 1.0, "1.0 must be greater than 1"),
        ({"at_most": 3}, "at most 3", 4, "4 must be at most 3"),
        ({"below": 3}, "below 3", 3, "3 must be below 3"),
        ({"at_least": 0, "below": 1}, "in [0, 1)", 1.0, "1.0 must lie in [0, 1)"),
        ({"above": 0, "at_most": 1}, "in (0, 1]", 0.0, "0.0 must lie in (0, 1]"),
        ({"at_least": 0, "below": 2**31}, "in [0, 2^31)", 2**31, "2147483648 must lie in [0, 2^31)"),
        ({"at_least": 1, "refusal": "is too few; take 1"}, "at least 1", 0, "0 is too few; take 1"),
        ({"at_least": 1}, "at least 1", (3, 0, -1), "0 must be at least 1"),
        ({"choices": ("a", "b")}, "", "c", "'c' is not one of a, b"),
        ({"choices": ("a", "b")}, "", ("a", "c"), "'c' is not one of a, b"),
    ],
)
def test_bounds_in_words_and_refusals(bounds, words, value, said):
    declared = Option("help", **bounds)
    assert (declared.bounds(), declared.fault(value)) == (words, said)


@pytest.mark.parametrize(
    ("bounds", "value"),
    [
        ({"at_least": 1}, 1),
        ({"at_least": 1}, None),
        ({"at_least": 1}, (1, 2)),
        ({"at_least": 1}, ()),
        ({"above": 0, "at_most": 1}, 1.0),
        ({"at_least": 2}, True),  # a truth value is no number
        ({"choices": ("a", "b")}, ("b", "a")),
        ({}, "anything"),
    ],
)
def test_what_lies_within_bounds(bounds, value):
    assert Option("help", **bounds).fault(value) is None


def test_help_on_a_page_and_on_a_terminal():
    declared = Option("as `x` says", unit="MB", see="training.md#saving")
    assert declared.markdown() == "as `x` says (unit: MB) ([training.md](training.md#saving))"
    assert declared.plain() == "as 'x' says (unit: MB); see docs/training.md#saving"
    assert Option("size", unit="MB", metavar="MB").plain() == "size"


@dataclass(frozen=True)
class Two:
    size: int = option(REQUIRED, "how many", at_least=1)
    rate: float = option(1e-4, "how fast", above=0, below=1)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self):
        if self.size % 2:
            yield f"size: {self.size} must be even"


def test_bounds_and_rules_are_checked_together():
    for make in (lambda: Two(-1, 2.0), lambda: build(Two, {"size": -1, "rate": 2})):
        with pytest.raises(ConfigError) as error:
            make()
        assert error.value.problems == (
            "size: -1 must be at least 1",
            "rate: 2.0 must lie in (0, 1)",
            "size: -1 must be even",
        )
    with pytest.raises(ConfigError, match="at.size: missing"):
        build(Two, {}, "at")
    assert [(key.name, key.kind, key.default) for key in keys_of(Two)] == [
        ("size", "whole number, at least 1", "required"),
        ("rate", "number, in (0, 1)", "1e-4"),
    ]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "null"),
        (True, "true"),
        (0.1, "0.1"),
        (1e-5, "1e-5"),
        (2.5e-4, "2.5e-4"),
        (2.0**32, "4294967296.0"),
        (0.0, "0.0"),
        ([], "[]"),
        (["a", 1], "[a, 1]"),
    ],
)
def test_defaults_as_yaml_has_them(value, word):
    assert yaml_word(value) == word
