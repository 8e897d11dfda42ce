"""Files with one JSON object a line: labelled texts (TNEWS, OCNLI, CSL, ..), and forms for own tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pangu_alpha.evaluation.tasks.item import Item, Problems
from pangu_alpha.evaluation.tasks.reading import (
    Row,
    rows_of_lines,
    take,
    take_fields,
    take_index,
    take_texts,
)
from pangu_alpha.evaluation.tasks.task import EvaluationTask
from pangu_alpha.files.shown import quoted

_IDS = ("id", "idx", "qid")


def name_of(row: Row, number: int) -> str:
    """The row's own id, or its number in the file.

    FewCLUE numbers rows of several files anew, and CSL repeats an id for each of an abstract's rows, so the
    number in the file is always a part of it.
    """
    own = next((row.values[key] for key in _IDS if isinstance(row.values.get(key), int | str)), None)
    return str(number) if own is None else f"{number}:{own}"


def read(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads labelled texts; the candidates are all labels.

    The labels are those of the templates' words; without words, those of `task.label_words`.
    """
    known = _words_of_templates(task) or tuple(task.label_words)
    rows = list(rows_of_lines(path, problems))
    labels = [_label(task, row, known, problems) for row in rows]
    items = []
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        fields = take_fields(row, task.fields, problems)
        if fields is None or label is None or label in task.dropped:
            continue
        choices = tuple({"label": task.label_words.get(each, each)} for each in known)
        name = name_of(row, number)
        items.append(Item(name, row.where, fields, "", choices, known.index(label)))
    return items


def with_labels(task: EvaluationTask, paths: Sequence[Path], problems: Problems) -> EvaluationTask:
    """Returns a task with the names of all labels that files hold, unless its templates have words for them.

    Args:
        paths: Files with rows of this form, of which only the labels are read.
    """
    if task.form != "labelled_lines" or _words_of_templates(task):
        return task
    words = dict(task.label_words)
    for path in paths:
        rows = list(rows_of_lines(path, problems))
        _name_labels(task, rows, [_label(task, row, (), problems) for row in rows], words, problems)
    kept = sorted({*words} - {*task.dropped}, key=_by_number)
    return replace(task, label_words={label: words[label] for label in kept})


def _words_of_templates(task: EvaluationTask) -> tuple[str, ...]:
    return next((tuple(template.words) for template in task.templates.values() if template.words), ())


def _label(task: EvaluationTask, row: Row, known: tuple[str, ...], problems: Problems) -> str | None:
    value = take(row, task.label, int if task.label_type == "number" else str, problems)
    label = None if value is None else str(value)
    if label is None or not known or label in known or label in task.dropped:
        return label
    problems.add(row.where, f"{quoted(task.label)} must be one of {', '.join(known)}, not {quoted(label)}")
    return None


def _name_labels(
    task: EvaluationTask,
    rows: Sequence[Row],
    labels: Sequence[str | None],
    words: dict[str, str],
    problems: Problems,
) -> None:
    """Adds the name of each label to `words`; every row of a label must give the same name."""
    for row, label in zip(rows, labels, strict=True):
        if label is not None and task.label_word is None:
            words.setdefault(label, label)
        word = take(row, task.label_word, str, problems) if task.label_word is not None else None
        if word is not None and label is not None and words.setdefault(label, word) != word:
            problems.add(
                row.where, f"label {label} is {quoted(word)} here, and {quoted(words[label])} before"
            )


def _by_number(label: str) -> tuple[int, str]:
    return (int(label), label) if label.isdecimal() else (1 << 62, label)


def read_questions(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads questions whose answer is generated; the key `task.label` holds a list of right answers."""
    items = []
    for number, row in enumerate(rows_of_lines(path, problems)):
        fields = take_fields(row, task.fields, problems)
        references = take_texts(row, task.label, problems)
        if fields is not None and references is not None:
            name = name_of(row, number)
            items.append(Item(name, row.where, fields, references=tuple(references)))
    return items


def read_choices(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads questions with their candidates: "choices" holds texts, `task.label` the right one's index."""
    items = []
    for number, row in enumerate(rows_of_lines(path, problems)):
        fields = take_fields(row, task.fields, problems)
        choices = take_texts(row, "choices", problems, least=2)
        gold = None if choices is None else take_index(row, task.label, len(choices), problems)
        if fields is not None and choices is not None and gold is not None:
            name = name_of(row, number)
            items.append(Item(name, row.where, fields, "", tuple({"choice": c} for c in choices), gold))
    return items
