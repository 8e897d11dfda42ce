"""Every option of every command: wrong words are refused in a sentence, and paths are expanded."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

import pangu_alpha
from pangu_alpha.__main__ import VERBS
from pangu_alpha.cli import options
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.option import option_of
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import RunConfig
from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.data.preprocess import PreprocessConfig
from pangu_alpha.text.documents.read_options import ReadOptions

PROGRAMS = Path(pangu_alpha.__file__).parent / "cli"
PATHS = (options.path_text, options.user_path)
PATH_WORDS = set("FILE DIR PATH YAML PNG TABLE SRC DST JSONL VOCAB RUN LIST".split())  # noqa: SIM905
NEVER = ("x", "1e400", "nan", "-inf", "", "9" * 5000)  # no number of any option
# Options for which 0, or a negative number, says something; all others refuse it as they read it.
ZERO = {
    "--ranks": "the first alone",
    "--dropout": "none",
    "--heartbeat": "none",
    "--restarts": "no further attempt",
    "--grace": "kill at once",
    "--node-rank": "the first",
    "--rank": "the first",
    "--first-rank": "the first",
    "--kill-rank": "the first",
    "--stop-rank": "the first",
    "--optimizer-threshold": "cut all",
    "--gradient-fusion": "merge none",
    "--shots": "zero-shot",
    "--tolerance": "equal",
    "--share": "every figure that differs",
    "--invalid-share": "none",
    "--port": "a free one",
    "--pinned": "none",
    "--queue": "nothing may wait",
    "--drain-timeout": "cut at once",
    "--id": "the first record of the first file",
}
CONFIGS = (ParallelPlan, RunConfig, ModelConfig, SamplingConfig, ReadOptions, PreprocessConfig, ServeConfig)
# Options that have the name of a field and are something else, and why.
OTHERS = {
    "plan operators --batch-size": "sequences of a micro-batch on all devices together",
    "plan operators --micro-batches": "the operator search has no plan",
    "plan replay --steps": "steps under each plan of a suite",
    "evaluate perplexity --batch-size": "sequences computed together, of no training",
    "evaluate tasks --batch-size": "texts computed together, of no training",
    "evaluate tasks --tasks": "names, of no training",
    "evaluate contamination --tasks": "names, of no training",
    "evaluate tasks --seed": "several seeds, of examples and drawn candidates",
    "predict --field": "KEY=VALUE of a task",
    **dict.fromkeys(
        [f"rank-table {word} --chip" for word in ("build", "merge", "permute", "check", "draw")]
        + ["launch train --chip", "check-cluster --chip"],
        "kind of a server, which knows more than the family",
    ),
    "merge-checkpoint --workers": "threads, not processes: the former name of --threads",
    "checkpoint export --workers": "threads, not processes: the former name of --threads",
    "predict --end-of-document": "of a checkpoint that was trained with another piece",
    "predict --slots": "at most as many as there are prompts, of no server",
    "checkpoint clean --host": "a node that has gone, of no server",
    **dict.fromkeys(
        ["corpus compare --seq-length", "corpus compare --batch-size"], "of small networks that are compared"
    ),
    **dict.fromkeys(
        ["corpus run --workers", "corpus demo --workers"], "processes of an engine, which take items"
    ),
    "serve --end-of-document": "of a checkpoint that was trained with another piece",
}
CHECKED_LATER = {  # by SamplingConfig and by the cleaner's and the vocabulary's own rules, in words
    "--temperature", "--top-k", "--top-p", "--min-p", "--frequency-penalty", "--presence-penalty",
    "--max-new-tokens", "--seed", "--coverage",
}  # fmt: skip


class FoundError(Exception):
    """Carries a parser out of the command that made it."""


def parsers():
    """Every parser of every command, those of subcommands included, by what is typed."""
    with pytest.MonkeyPatch.context() as patch:

        def found(self, *_):
            raise FoundError(self)

        patch.setattr(argparse.ArgumentParser, "parse_known_args", found)
        for verb in VERBS:
            module = importlib.import_module(f"pangu_alpha.cli.{verb.replace('-', '_')}")
            for program in ("train", "predict") if verb == "launch" else ("",):
                with pytest.raises(FoundError) as error:
                    module.main([str(PROGRAMS / f"{program}.py")] if program else [])
                yield from _with_inner(f"{verb} {program}".strip(), error.value.args[0])


def _with_inner(name, parser):
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield name, parser
    for action in inner:
        for word, each in action.choices.items():
            yield from _with_inner(f"{name} {word}", each)


PARSERS = list(parsers())
ACTIONS = [
    pytest.param(action, id=f"{name} {action.option_strings[0] if action.option_strings else action.dest}")
    for name, parser in PARSERS
    for action in parser._actions
    if action.type is not None
]


def test_every_command_is_seen():
    assert {name.split()[0] for name, _ in PARSERS} == set(VERBS) and len(PARSERS) > 20 and len(ACTIONS) > 100
    assert all(isinstance(parser, Parser) for _, parser in PARSERS)


def taken(kind, word):
    """What a type makes of a word; None if it is refused in a sentence."""
    try:
        return kind(word)
    except ArgumentTypeError as error:
        assert 10 < len(str(error)) < 250 and "\n" not in str(error)
        return None


@pytest.mark.parametrize("action", ACTIONS)
def test_wrong_words_are_refused_in_a_sentence(action):
    assert action.type not in (int, float, Path), "use a type of cli/options/value_types.py"
    name = action.option_strings[0] if action.option_strings else action.dest
    if action.type in PATHS:
        assert taken(action.type, "") is None and taken(action.type, "$NO_SUCH_VARIABLE/x") is None
        return
    one = taken(action.type, "1")
    if not isinstance(one, int | float) and one != (1,):
        return  # no number
    for word in NEVER:
        assert taken(action.type, word) is None, word
    for word in ("0", "-1"):
        value = taken(action.type, word)
        assert value is None or name in CHECKED_LATER or (word == "0" and name in ZERO), (name, word, value)


def declared_fields():
    """By the name of an option: the declarations of the fields that have it."""
    found = {}
    for cls in CONFIGS:
        for field in dataclasses.fields(cls):
            if (declared := option_of(field)) is not None and field.name != "output":
                found.setdefault(f"--{field.name.replace('_', '-')}", []).append(declared)
    return found


def test_no_command_words_a_field_in_its_own_way():
    fields, seen, own = declared_fields(), set(), []
    for name, parser in PARSERS:
        for action in parser._actions:
            for option in set(action.option_strings) & fields.keys():
                if f"{name} {option}" in OTHERS:
                    seen.add(f"{name} {option}")
                elif not any(action.help.startswith(each.plain()) for each in fields[option]):
                    own.append(f"{name} {option}")
    assert not own and seen == OTHERS.keys()


def test_every_option_says_what_it_is():
    silent = [
        f"{name} {action.option_strings}"
        for name, parser in PARSERS
        for action in parser._actions
        if action.option_strings and (not action.help or action.help.startswith("(default"))
    ]
    assert not silent


# Former names of options, which scripts may use.
FORMER = {
    "train": {"--init-from": "initial"},
    "preprocess": {"--tokenizer": "tokenizer"},
    "evaluate perplexity": {"--tokenizer": "tokenizer"},
    "predict": {"--tokenizer": "tokenizer"},
    "fetch": {"--to": "to"},
    "merge-checkpoint": {"--workers": "workers"},
    "checkpoint export": {"--workers": "workers"},
    "plan search": {"--out": "out", "--layers": "num_layers"},
    "plan operators": {"--out": "table_file", "--layers": "num_layers"},
    "plan dry-run": {"--out": "out", "--layers": "num_layers"},
    "plan replay": {"--out": "out", "--layers": "num_layers"},
    "plan train-replay": {"--out": "out", "--layers": "num_layers"},
    "plan strategies": {"--out": "out", "--layers": "num_layers"},
}


def test_former_names_are_still_taken():
    found = dict(PARSERS)
    for name, former in FORMER.items():
        actions = found[name]._option_string_actions
        for option, dest in former.items():
            action = actions[option]
            assert action.dest == dest and option != action.option_strings[0], (name, option)


def test_options_that_take_a_path_expand_it():
    missing = [
        f"{name} {action.option_strings or action.dest}"
        for name, parser in PARSERS
        for action in parser._actions
        if isinstance(action.metavar, str)
        and set(action.metavar.split("|")) & PATH_WORDS
        and action.type not in PATHS
    ]
    assert not missing


def test_options_that_take_a_list_may_be_given_again():
    """`--input a --input b` would lose a without a word."""
    lost = [
        f"{name} {action.option_strings}"
        for name, parser in PARSERS
        for action in parser._actions
        if action.option_strings
        and action.nargs in ("+", "*")
        and not isinstance(action, argparse._ExtendAction)
    ]
    assert not lost


@pytest.mark.parametrize("words", [[]] + [[verb] for verb in VERBS if verb != "launch"])
def test_no_command_takes_abbreviations(words):
    assert all(not parser.allow_abbrev for name, parser in PARSERS if name.split()[:1] == words or not words)


@pytest.mark.parametrize("name, parser", PARSERS, ids=[name for name, _ in PARSERS])
def test_every_command_has_a_help(name, parser, capsys):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--help"])
    assert ended.value.code == 0 and "usage: " in capsys.readouterr().out
