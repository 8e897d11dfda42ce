"""What a page's command line names: the program, its options, the files that it reads and writes.

Nothing is run: the words go through the program's own parser.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest import mock

import pangu_alpha
from pangu_alpha.__main__ import VERBS
from pangu_alpha.cli import options
from pangu_alpha.config.zoo import MODEL_NAMES

ROOT = Path(__file__).parents[2]
CLI = Path(pangu_alpha.__file__).parent / "cli"
PATHS = (options.path_text, options.user_path)
# Options and words that name what a command writes, or a folder that need not be there.
WRITTEN = {
    "--output", "--out", "--picture", "--pictures", "--log-dir", "--compile-cache", "--to", "--folder",
}  # fmt: skip
_USAGE = re.compile(r"\[-|\[\w+ |\[\w+=|\.\.\.| \| \w+ \|")
_LAUNCH = re.compile(r'^launch (\w+)\.py.*"\$@"', re.M)
_EXEC = re.compile(r'^run exec python "\$ROOT/src/(\w+)\.py" "\$@"', re.M)


class FoundError(Exception):
    """Carries a parser out of the command that made it."""


@dataclass
class Call:
    """A program of this project and the words of its command line.

    program is a verb (`train`, `launch train`, `merge-checkpoint`) or the path of a benchmark.
    """

    program: str
    words: list[str] = field(default_factory=list)


def is_usage(text: str) -> bool:
    """Whether a line shows the form of a command, with [--option VALUE] or ..., and is none to be typed."""
    return bool(_USAGE.search(text.split("<<", 1)[0]))


def simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command of a line of bash, without redirections and here-documents."""
    line = text.split("<<", 1)[0].replace("\\\n", " ")
    line = re.sub(r"(?<=\s)\d(?=[<>])", "", line)  # 2>&1: the number of a stream is no word
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace_split = True
    lexer.whitespace = " \t\r"
    lexer.commenters = ""
    words: list[str] = []
    skip = False
    for word in lexer:
        if skip:
            skip = False
        elif set(word) <= set("<>&") and word != "&" and word != "&&":
            skip = True
        elif set(word) <= set("();|&\n"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def calls(text: str) -> list[Call]:
    """The programs of this project that a line of bash starts."""
    found = (_call(words) for words in simple_commands(text) if words)
    return [call for call in found if call is not None]


def _call(words: list[str]) -> Call | None:
    while words and (re.fullmatch(r"\w+=.*", words[0], re.S) or words[0] in ("nohup", "time", "exec", "env")):
        words = words[1:]
    match words:
        case ["pangu-alpha" | "pangu_alpha", *rest] | ["python", "-m", "pangu_alpha", *rest]:
            return _verb(rest)
        case ["python", "-m", name, *rest] if name.startswith("pangu_alpha.cli."):
            return Call(_known(name.rpartition(".")[2]), rest)
        case ["python", path, *rest] if path.startswith("src/") and path.endswith(".py"):
            return Call(_known(Path(path).stem), rest)
        case ["python", path, *rest] if path.startswith("benchmarks/"):
            return Call(path, rest)
        case ["bash", "run_scripts/run_serve.sh", *rest] if "--checkpoint" not in rest:
            return Call("serve", ["--checkpoint", "runs/quickstart/run", *rest])  # its default
        case ["bash", path, *rest] if path.startswith("run_scripts/"):
            return _script(path, rest)
    return None


def _verb(words: list[str]) -> Call:
    if words[:1] == ["launch"] and len(words) > 1:
        return Call(f"launch {words[1]}", words[2:])
    return Call(_known(words[0]), words[1:]) if words and not words[0].startswith("-") else Call("", words)


def _known(name: str) -> str:
    """The verb of a program; `` for one that has no options of its own, such as the launcher."""
    verb = name.replace("_", "-")
    assert verb in VERBS or (CLI / f"{name}.py").exists(), f"there is no program {name}"
    return verb if verb in VERBS and verb != "launch" else ""


def _script(path: str, words: list[str]) -> Call:
    """A script of run_scripts, by what it hands its words to; `` if it takes none."""
    text = (ROOT / path).read_text("utf-8")
    if found := _LAUNCH.search(text):
        return Call(f"launch {found[1]}", words)
    if found := _EXEC.search(text):
        return Call(_known(found[1]), words)
    return Call("", words)


@cache
def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser of a program, taken from its own main before it parses anything."""

    def found(self, *_):
        raise FoundError(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", found):
        try:
            _start(program)
        except FoundError as error:
            return error.args[0]
    raise AssertionError(f"{program} has no parser")


def _start(program: str) -> None:
    if program.startswith("benchmarks/"):
        name = "of_a_page_" + Path(program).stem
        spec = importlib.util.spec_from_file_location(name, ROOT / program)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # its dataclasses look themselves up there
        with mock.patch.object(sys, "path", [*sys.path, str(ROOT / "benchmarks")]):  # they import each other
            spec.loader.exec_module(module)
        module.main()
        return
    verb, *launched = program.split()
    module = importlib.import_module(f"pangu_alpha.cli.{verb.replace('-', '_')}")
    module.main([str(CLI / f"{launched[0]}.py")] if launched else [])


def parsed(call: Call) -> tuple[argparse.ArgumentParser, argparse.Namespace, list[str]]:
    """The parser (of the subcommand named), what the words mean, and the words for a launched program.

    Raises:
        AssertionError: The program would refuse the words.
    """
    parser = parser_of(call.program)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            line, rest = parser.parse_known_args(list(call.words))
            if not call.program.startswith("launch"):
                parser.parse_args(list(call.words))
    except SystemExit as error:
        assert error.code == 0, said.getvalue()  # --help
        return parser, argparse.Namespace(), []
    if call.program == "launch predict":
        parsed(Call("predict", ["--checkpoint", "x", "--prompt", "x", *rest]))
    elif call.program == "launch train":
        assert all("=" in word for word in rest), rest
    return _inner(parser, call.words), line, rest


def _inner(parser: argparse.ArgumentParser, words: list[str]) -> argparse.ArgumentParser:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            at, word = next((at, word) for at, word in enumerate(words) if word in action.choices)
            return _inner(action.choices[word], words[at + 1 :])
    return parser


def paths(call: Call) -> tuple[list[str], list[str]]:
    """Files and folders that a command reads, and those that it writes."""
    parser, line, rest = parsed(call)
    read: list[str] = []
    written = [word.partition("=")[2] for word in [*call.words, *rest] if word.startswith("run.output=")]
    for action in parser._actions:
        value = getattr(line, action.dest, None)
        if action.type not in PATHS or value is None or value == action.default:
            continue
        values = [str(each) for each in (value if isinstance(value, list | tuple) else [value])]
        if action.dest == "overrides" or all(_names_something_else(each) for each in values):
            continue
        names = set(action.option_strings) or {action.dest}
        (written if names & WRITTEN or action.metavar == "DST" else read).extend(values)
    return read, written


def _names_something_else(word: str) -> bool:
    """Words that may stand in the place of a path: a shipped model, a cluster, `auto`."""
    return word in {*MODEL_NAMES, "auto", "never", "-"} or bool(re.fullmatch(r"\w+(-\w+)?-\d+", word))


def option_names(program: str) -> set[str]:
    """All options of a program and of its subcommands."""
    return set(_names(parser_of(program)))


def _names(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _names(inner)
