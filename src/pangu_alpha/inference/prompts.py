"""Reads prompts as users give them: on the command line, or in files with one prompt per line.

Knows no model and no MindSpore.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pangu_alpha.files.reading import ReadError, parse_json, read_text, require_file
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.inference.tasks import Task
from pangu_alpha.text.tokenizer import CONTROL_NAMES, PanguTokenizer

logger = logging.getLogger(__name__)

_STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # paths that shells give for <(command) and `-`


def prompt_lines(path: str | Path) -> list[tuple[int, str]]:
    """Returns the lines of a prompt file that are not blank, with their numbers from 1.

    Raises:
        OSError: The file cannot be read.
        ReadError: The path is not a file, or its content is not UTF-8 or holds no prompt.
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
    """Returns the prompts of a file: its lines, or for FILE.jsonl the prompts in its objects.

    Args:
        path: A UTF-8 file; pipes are allowed only as the shell's <(command).
        task: Makes the prompts from the objects' fields; None takes their field "prompt".

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not UTF-8, holds no prompt, or has bad lines, all of which are listed.
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
    """Returns a task's fields from words of the form KEY=VALUE.

    Raises:
        ValueError: A word has no =, or a key occurs twice.
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
    """Refuses a word of the command line that is not UTF-8, which Python represents with lone surrogates.

    Args:
        where: The option it was given to, for the error message.

    Raises:
        ValueError: The word is not UTF-8.
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


def encode_prompt(tokenizer: PanguTokenizer, prompt: str, number: int = 0) -> list[int]:
    """Returns the ids of a prompt, and logs a warning where users may expect something else.

    Args:
        prompt: Any text; the result is empty if the vocabulary drops all of it.
        number: Index of the prompt, for the warning.
    """
    ids = tokenizer.encode(prompt)
    names = [name for name in CONTROL_NAMES if name in prompt]
    if names:
        logger.warning(
            "prompt %d: %s is read as plain text, not as a control id", number, " and ".join(names)
        )
    known = [token for token in ids if token != tokenizer.unk_id]
    if len(known) < len(ids) and not tokenizer.decode(known).strip():
        logger.warning("prompt %d: all its characters are outside the vocabulary", number)
    return ids
