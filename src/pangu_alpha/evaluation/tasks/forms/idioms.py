"""ChID: which idiom belongs into a blank? FewCLUE has a blank an item, CLUE several a passage."""

from __future__ import annotations

import re
from pathlib import Path

from pangu_alpha.evaluation.tasks.forms.labelled import name_of
from pangu_alpha.evaluation.tasks.item import Item, Problems
from pangu_alpha.evaluation.tasks.reading import (
    Row,
    json_file,
    rows_of_lines,
    take_index,
    take_text,
    take_texts,
)
from pangu_alpha.evaluation.tasks.task import EvaluationTask
from pangu_alpha.files.shown import quoted

_BLANK = "#idiom#"
_TAG = re.compile(r"#idiom\d+#")


def read_fewclue(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads rows of candidates, content with one #idiom#, and answer, an index."""
    items = []
    for number, row in enumerate(rows_of_lines(path, problems)):
        candidates = take_texts(row, "candidates", problems, least=2)
        content = take_text(row, "content", problems)
        gold = None if candidates is None else take_index(row, "answer", len(candidates), problems)
        if content is not None and content.count(_BLANK) != 1:
            problems.add(row.where, f"'content' must have {_BLANK} once, not {content.count(_BLANK)} times")
            continue
        if content is not None and candidates is not None and gold is not None:
            name = name_of(row, number)
            before, _, after = content.partition(_BLANK)
            items.append(_item(name, row.where, "", before, after, candidates, gold))
    return items


def read_clue(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads rows of candidates and content, a list of passages with tags such as #idiom000378#.

    Every tag is an item. The other tags of its passage are left out of its text, because their idioms are
    not known either.
    """
    gold_of = json_file(answers, dict, problems) if answers is not None else None
    if answers is None:
        problems.add(path, "the file of its answers, {'#idiom000378#': 3, ..}, is missing")
    items = []
    for row in rows_of_lines(path, problems):
        candidates = take_texts(row, "candidates", problems, least=2)
        passages = take_texts(row, "content", problems)
        for passage in passages or () if candidates is not None else ():
            for found in _TAG.finditer(passage):
                tag = found[0]
                gold = _gold(tag, gold_of, len(candidates or ()), f"{answers}, {tag}", problems)
                if gold is None:
                    continue
                before = _TAG.sub("", passage[: found.start()])
                after = _TAG.sub("", passage[found.end() :])
                items.append(_item(tag.strip("#"), row.where, passage, before, after, candidates or [], gold))
    return items


def _gold(tag: str, gold_of: dict | None, count: int, where: str, problems: Problems) -> int | None:
    if gold_of is None:
        return None
    if tag not in gold_of:
        problems.add(where, f"no answer for {quoted(tag)}")
        return None
    return take_index(Row(where, gold_of), tag, count, problems)


def _item(
    name: str, where: str, group: str, before: str, after: str, candidates: list[str], gold: int
) -> Item:
    choices = tuple({"choice": idiom} for idiom in candidates)
    return Item(name, where, {"before": before, "after": after}, group, choices, gold)
