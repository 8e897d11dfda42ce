"""What options take and in which words they refuse; options that a configuration declares."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from pangu_alpha.cli import options
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config import option as config_option
from pangu_alpha.config.option import option
from pangu_alpha.config.schema import ConfigError, PathText, validate

LONG = "9" * 5000


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("positive", "1", 1),
        ("natural", "0", 0),
        ("port", "65535", 65535),
        ("naturals", "0,3,1", (0, 3, 1)),
        ("number", "-1e-5", -1e-5),
        ("positive_number", "0.5", 0.5),
        ("nonnegative_number", "0", 0.0),
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
        *(("naturals", text, "is not a whole number of at least 0") for text in ("3,,4", "-1", "3,x", "")),
        ("naturals", "0,1,0", "'0,1,0' names a number twice"),
        *(("number", text, "is not a finite number") for text in ("nan", "inf", "1e400", "x", LONG)),
        *(("positive_number", text, "is not a number above 0") for text in ("0", "-1", "-0.0", "1e-400")),
        *(("positive_number", text, "is not a finite number") for text in ("nan", "inf", "1e400")),
        ("nonnegative_number", "-1e-9", "is not a number of at least 0"),
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


@dataclass(frozen=True)
class Some:
    """A configuration with a field of every kind."""

    count: int = option(config_option.REQUIRED, "things that are counted, all 100% of them", at_least=1)
    share: float = option(0.5, "part of the whole", above=0, at_most=1, metavar="P")
    seed: int = option(1, "start of the draws", at_least=0, below=2**31)
    mode: Literal["fast", "exact"] = option("fast", "`fast`, or `exact`")
    level: str = option("low", "how much", choices=("low", "high"))
    place: PathText | None = option(None, "where it lies")
    rows: tuple[int, ...] = option((), "rows of each part", at_least=1)
    words: tuple[str, ...] = option((), "words that are left out")
    again: str | tuple[str, ...] = option("none", "one word, or many", choices=("none", "all"), metavar="W")
    quick: bool = option(True, "be quick")
    size: int = option(2**20, "largest size", unit="bytes", at_least=1)
    inner: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        validate(self)


def parsed(*words, bounds=True, **differing):
    parser = Parser(prog="x")
    options.add_options(parser, Some, "*", bounds=bounds, **differing)
    return parser.parse_args(words)


def test_options_of_a_configuration_read_its_fields():
    line = (
        "--count 3 --share 1 --mode exact --level high --place a/b --rows 1,2 --words x --words y "
        "--again none,all --no-quick --size 2"
    )
    found = options.config_from(parsed(*line.split()), Some, {"seed": 7, "inner": ["z"]})
    assert found == Some(
        3, 1.0, 7, "exact", "high", "a/b", (1, 2), ("x", "y"), ("none", "all"), False, 2, ("z",)
    )


def test_what_is_not_given_is_the_field_s_default():
    found = parsed("--count", "3")
    assert options.given_fields(found, Some) == {"count": 3}
    assert options.config_from(found, Some) == Some(3)
    with pytest.raises(ConfigError, match="count: missing"):
        options.config_from(parsed(), Some)


def test_how_a_command_s_option_differs():
    differing = {
        "count": options.Differs(older="--number", default=4),
        "size": options.Differs(read=options.byte_size, shown="1 MiB"),
    }
    assert parsed(**differing).count == 4
    found = parsed("--number", "5", "--size", "2KB", **differing)
    assert (found.count, found.size) == (5, 2000)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--count 0", "argument --count: '0' is not a whole number of at least 1"),
        ("--seed 2147483648", "argument --seed: '2147483648' is not a whole number from 0 to 2147483647"),
        ("--share 1.5", "argument --share: 1.5 must lie in (0, 1]"),
        ("--share x", "argument --share: 'x' is not a finite number"),
        ("--mode slow", "argument --mode: invalid choice: 'slow' (choose from 'fast', 'exact')"),
        ("--rows 1,0", "argument --rows: '0' is not a whole number of at least 1"),
        ("--place $NO_SUCH_VARIABLE_HERE", "argument --place: "),
    ],
)
def test_what_an_option_of_a_field_refuses(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(*words.split())
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_bounds_may_be_left_to_the_configuration_which_reports_all_problems():
    found = parsed("--count", "0", "--share", "2", "--again", "some", bounds=False)
    with pytest.raises(ConfigError) as error:
        options.config_from(found, Some)
    assert error.value.problems == (
        "count: 0 must be at least 1",
        "share: 2.0 must lie in (0, 1]",
        "again: 'some' is not one of none, all",
    )


def test_the_help_is_the_declaration(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    parser = Parser(prog="x")
    options.add_options(
        parser, Some, "*", count=options.Differs(required=True), rows=options.Differs(shown="even")
    )
    text = " ".join(parser.format_help().split())
    for said in (
        "--count N things that are counted, all 100% of them --share",
        "--share P part of the whole (default: 0.5)",
        "--mode {fast,exact} 'fast', or 'exact' (default: fast)",
        "--place PATH where it lies --rows",
        "--rows N,N,... rows of each part (default: even)",
        "--words TEXT words that are left out; may be repeated --again",
        "--quick, --no-quick be quick (default: true)",
        "--size N largest size (unit: bytes) (default: 1048576)",
    ):
        assert said in text


def test_a_field_that_is_not_declared_has_no_option():
    for name in ("inner", "cuont"):
        with pytest.raises(AssertionError, match=f"Some declares no .*{name}"):
            options.add_options(Parser(prog="x"), Some, name)
