"""CMRC2019: which of the candidate sentences belongs into each blank of a passage? No sentence fits twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pangu_alpha.evaluation.tasks.item import Item, Problems
from pangu_alpha.evaluation.tasks.reading import Row, json_file, take, take_text, take_texts
from pangu_alpha.evaluation.tasks.task import EvaluationTask
from pangu_alpha.files.shown import quoted

_BLANK = re.compile(r"\[BLANK(\d+)\]")
# The released script's window around a blank, in characters.
_BEFORE = 300
_AFTER = 200


def read(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads the passages; every blank is an item, whose group is its passage."""
    document = json_file(path, dict, problems)
    data = None if document is None else take(Row(str(path), document), "data", list, problems)
    items = []
    for number, entry in enumerate(data or ()):
        if isinstance(entry, dict):
            items += _passage(Row(f"{path}, passage {entry.get('context_id', number)}", entry), problems)
        else:
            problems.add(f"{path}, data[{number}]", f"must be an object, not {quoted(entry)}")
    return items


def _passage(row: Row, problems: Problems) -> list[Item]:
    name, context = take_text(row, "context_id", problems), take_text(row, "context", problems)
    choices, gold = take_texts(row, "choices", problems), take(row, "answers", list, problems)
    if name is None or context is None or choices is None or gold is None:
        return []
    blanks = list(_BLANK.finditer(context))
    if not _fits(gold, len(blanks), len(choices)):
        rule = (
            f"'answers' must have one different index below {len(choices)} for each of the {len(blanks)} "
            f"blanks, not {quoted(gold)}"
        )
        problems.add(row.where, rule + ("; a test set without answers cannot be scored" if not gold else ""))
        return []
    options = tuple({"choice": choice} for choice in choices)
    return [
        Item(f"{name}:{found[1]}", f"{row.where}, {found[0]}", _around(context, found), name, options, right)
        for found, right in zip(blanks, gold, strict=True)
    ]


def _fits(gold: list[Any], blanks: int, choices: int) -> bool:
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in gold)
    return whole and len(gold) == blanks == len(set(gold)) and all(0 <= each < choices for each in gold)


def _around(context: str, found: re.Match[str]) -> dict[str, str]:
    before = _BLANK.sub("", context[: found.start()])[-_BEFORE:]
    after = _BLANK.sub("", context[found.end() :])[:_AFTER]
    return {"before": before, "after": after}
