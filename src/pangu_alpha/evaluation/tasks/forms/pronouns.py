"""CLUEWSC2020: does a pronoun mean a given name? Compared are the text with the name and as it is.

The conversion is ours, because the paper's was not published: the pronoun is replaced by the name.
"""

from __future__ import annotations

from pathlib import Path

from pangu_alpha.evaluation.tasks.forms.labelled import name_of
from pangu_alpha.evaluation.tasks.item import Item, Problems
from pangu_alpha.evaluation.tasks.reading import Row, rows_of_lines, take, take_index, take_text
from pangu_alpha.evaluation.tasks.task import EvaluationTask
from pangu_alpha.files.shown import quoted

_LABELS = ("true", "false")


def read(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads the items; their fields are before, name, pronoun and after."""
    items = []
    for number, row in enumerate(rows_of_lines(path, problems)):
        label = take(row, task.label, str, problems)
        if label is not None and label not in _LABELS:
            problems.add(
                row.where, f"{quoted(task.label)} must be true or false, as a text, not {quoted(label)}"
            )
            label = None
        fields = _fields(row, problems)
        if label is not None and fields is not None:
            name = name_of(row, number)
            choices = tuple({"label": each} for each in _LABELS)
            items.append(Item(name, row.where, fields, "", choices, _LABELS.index(label)))
    return items


def _fields(row: Row, problems: Problems) -> dict[str, str] | None:
    text = take_text(row, "text", problems)
    target = take(row, "target", dict, problems)
    if text is None or target is None:
        return None
    inner = Row(f"{row.where}, target", target)
    name = take_text(inner, "span1_text", problems)
    pronoun = take_text(inner, "span2_text", problems)
    place = take_index(inner, "span2_index", len(text), problems)
    if name is None or pronoun is None or place is None:
        return None
    if not text.startswith(pronoun, place):
        found = quoted(text[place : place + len(pronoun)])
        problems.add(inner.where, f"'span2_index': the text has {found} there, not {quoted(pronoun)}")
        return None
    after = text[place + len(pronoun) :]
    return {"before": text[:place], "name": name, "pronoun": pronoun, "after": after}
