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
        ("number", "-1e-5", -1e-5),
        ("positive_number", "0.5", 0.5),
        ("nonnegative_number", "0", 0.0),
        ("fraction", "1", 1.0),
        ("byte_size", "2GB", 2 * 10**9),
        ("byte_size", "1.5 mb", 1500000),
        ("byte_size", "7", 7),
        ("byte_size", "3k", 3000),
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
        *(("number", text, "is not a finite number") for text in ("nan", "inf", "1e400", "x", LONG)),
        *(("positive_number", text, "is not a number above 0") for text in ("0", "-1", "-0.0", "1e-400")),
        *(("positive_number", text, "is not a finite number") for text in ("nan", "inf", "1e400")),
        ("nonnegative_number", "-1e-9", "is not a number of at least 0"),
        *(("fraction", text, "is not a share above 0 and of at most 1") for text in ("0", "1.01", "-1")),
        *(("byte_size", text, "is not a size such as 2GB") for text in ("0", "-1", "x", "nan", LONG + "GB")),
        ("path_text", "", "'' is no path"),
        ("user_path", "$NO_SUCH_VARIABLE_HERE/x", "has no value for"),
    ],
)
def test_wrong_words_are_refused_in_words(kind, text, words):
    with pytest.raises(ArgumentTypeError, match=words) as refused:
        getattr(options, kind)(text)
    assert len(str(refused.value)) < 200


@pytest.fixture
def parser():
    parser = options.Parser(prog="train.py", epilog="  train.py --config run.yaml")
    parser.add_argument("--config", required=True, type=options.path_text)
    parser.add_argument("--steps", type=options.natural, default=5)
    parser.add_argument("words", nargs="*")
    return parser


@pytest.mark.parametrize(
    "line",
    [
        "a=1 --config c b=2 --steps 0 d=3",
        "--config c --steps=0 a=1 b=2 d=3",
        "a=1 b=2 d=3 --steps 0 --config c",
        "a=1 --config c --steps 0 -- b=2 d=3",
    ],
)
def test_words_stand_on_both_sides_of_options(parser, line):
    found = parser.parse_args(line.split())
    assert (found.words, found.config, found.steps) == (["a=1", "b=2", "d=3"], "c", 0)


def test_no_words(parser):
    found = parser.parse_args(["--config", "c"])
    assert (found.words, found.steps) == ([], 5)


def test_subcommands_take_words_on_both_sides():
    parser = options.Parser(prog="x")
    one = parser.add_subparsers(dest="command", required=True).add_parser("merge")
    one.add_argument("--to")
    one.add_argument("sources", nargs="+")
    one.add_argument("target")
    found = parser.parse_args(["merge", "a", "--to", "t", "b", "c"])
    assert (found.sources, found.target, found.to) == (["a", "b"], "c", "t")


def test_a_refusal_of_the_parser(parser, capsys):
    for words, said in (
        (["--config", "c", "--stps", "3"], "unrecognized arguments: --stps"),
        (["a"], "the following arguments are required: --config"),
        (["--config", "c", "--steps", "-1"], "argument --steps: '-1' is not a whole number of at least 0"),
        (["--config", "c", "--\x1b[31m"], "--\\x1b[31m"),
    ):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(words)
        assert ended.value.code == 2 and said in capsys.readouterr().err


def test_the_help_names_what_was_typed(parser, monkeypatch):
    assert "usage: train.py" in parser.format_help()
    monkeypatch.setattr(options.Parser, "called_as", "pangu-alpha train")
    again = options.Parser(prog="train.py", epilog="  train.py --config run.yaml")
    assert again.format_help().startswith("usage: pangu-alpha train")
    assert "pangu-alpha train --config" in again.format_help()
