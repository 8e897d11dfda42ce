"""Words on both sides of options, and how a wrong line is refused."""

from __future__ import annotations

import pytest

from pangu_alpha.cli import options
from pangu_alpha.cli.parser import Parser


@pytest.fixture
def parser():
    parser = Parser(prog="train.py", epilog="  train.py --config run.yaml")
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
    parser = Parser(prog="x")
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
    monkeypatch.setattr(Parser, "called_as", "pangu-alpha train")
    again = Parser(prog="train.py", epilog="  train.py --config run.yaml")
    assert again.format_help().startswith("usage: pangu-alpha train")
    assert "pangu-alpha train --config" in again.format_help()


def test_of_an_option_given_twice_the_last_one_holds_and_a_note_says_so(parser, capsys):
    found = parser.parse_args(["--config", "a", "w=1", "--steps", "3", "--config=b", "--steps", "3"])
    assert (found.config, found.steps, found.words) == ("b", 3, ["w=1"])
    assert capsys.readouterr().err == "note: --config is given twice, 'a' does not count\n"
    parser.parse_args(["--config", "c"])  # another line
    assert capsys.readouterr().err == ""


def test_an_abbreviation_is_refused_with_the_option_it_may_mean(parser, capsys):
    outer = Parser(prog="x")
    commands = outer.add_subparsers(dest="command")
    commands.add_parser("search").add_argument("--global-batch")
    commands.add_parser("replay")
    for each, words, near in (
        (parser, ["--conf", "a", "--config", "b"], "--config"),
        (parser, ["--config", "b", "--stps=3"], "--steps"),
        (outer, ["search", "--glob", "3"], "--global-batch"),
    ):
        with pytest.raises(SystemExit):
            each.parse_args(words)
        assert capsys.readouterr().err.endswith(f"; did you mean {near}?\n")
    with pytest.raises(SystemExit):  # the option of another command is no remedy
        outer.parse_args(["replay", "--global-batch", "3"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: --global-batch 3\n")


def test_a_wrong_option_of_a_subcommand_whose_name_is_not_kept(capsys):
    parser = Parser(prog="x")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("diff").add_argument("--tolerance")
    commands.add_parser("verify").add_argument("path")
    with pytest.raises(SystemExit):
        parser.parse_args(["diff", "--tolerence", "3"])
    assert "unrecognized arguments: --tolerence 3; did you mean --tolerance?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args(["verify", "a", "b"])
    assert "unrecognized arguments: b" in capsys.readouterr().err


def test_the_usage_of_a_subcommand_names_it(monkeypatch):
    monkeypatch.setattr(Parser, "called_as", "pangu-alpha x")
    one = Parser(prog="x.py").add_subparsers().add_parser("merge", epilog="x.py merge a b")
    assert one.format_usage() == "usage: pangu-alpha x merge [-h]\n"
