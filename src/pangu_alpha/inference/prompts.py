"""Prompts as users give them: words of a command line, and files of a prompt a line.

Knows no model and no MindSpore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pangu_alpha.files.reading import ReadError, parse_json, read_text, require_file
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.inference.tasks import Task

_STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # what <(command) of a shell and `-` of others are


def prompt_lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines of a prompt file that are not blank, with their numbers from 1.

    Raises:
        OSError: The file cannot be read.
        ReadError: It is no file, not UTF-8, or holds no prompt.
    """
    path = Path(path)
    if not str(path).startswith(_STREAMS):
        require_file(path)
    lines = read_text(path).split("\n")
    numbered = [(number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ReadError(f"{shown(path)}: holds no prompt; write one a line")
    return numbered


def read_prompt_file(path: str | Path, task: Task | None = None) -> list[str]:
    """The prompts of a file: its lines, or of FILE.jsonl what their objects say.

    Args:
        path: UTF-8; a pipe only as the shell's <(command).
        task: Makes the prompts from the objects' fields.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not UTF-8, holds no prompt, or has bad lines; all of them are named.
    """
    lines = prompt_lines(path)
    if Path(path).suffix.lower() != ".jsonl":
        if task:
            raise ReadError(f"{shown(path)}: --task takes its fields from a .jsonl file")
        return [line for _, line in lines]
    prompts, problems = [], []
    for number, line in lines:
        try:
            prompts.append(_prompt(parse_json(line, path, line=number), task))
        except ReadError as error:
            problems.append(str(error))
        except ValueError as error:
            problems += [f"{shown(path)}, line {number}: {problem}" for problem in str(error).split("\n")]
    if problems:
        raise ValueError("\n".join(problems))
    return prompts


def parse_fields(words: Iterable[str]) -> dict[str, str]:
    """A task's fields from KEY=VALUE words.

    Raises:
        ValueError: A word without =, or a key twice.
    """
    fields: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--field {quoted(word)}: write it as key=value")
        if key in fields:
            raise ValueError(f"--field {quoted(key)}: given twice, {quoted(fields[key])} and {quoted(value)}")
        fields[key] = value
    return fields


def require_text(text: str, where: str) -> None:
    """Refuses a word of a command line that is not UTF-8, which Python fills up with half characters.

    Args:
        text: The word.
        where: Its option, for the error.

    Raises:
        ValueError: It is not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} {quoted(text)}: not UTF-8 text; set the terminal to UTF-8") from error


def _prompt(value: Any, task: Task | None) -> str:
    if not isinstance(value, Mapping):
        raise ValueError(f"not a JSON object but {quoted(value)}")
    if task is None:
        if not isinstance(value.get("prompt"), str):
            raise ValueError('no text under "prompt"')
        return value["prompt"]
    examples = value.get("examples", [])
    if not isinstance(examples, list) or not all(isinstance(example, Mapping) for example in examples):
        raise ValueError(f'"examples": must be a list of objects, not {quoted(examples)}')
    return task.render({name: each for name, each in value.items() if name != "examples"}, examples)
