"""Questions about passages: SQuAD's form (CMRC2018, DRCD), C3, WebQA and DuReader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pangu_alpha.evaluation.tasks.item import Item, Problems
from pangu_alpha.evaluation.tasks.reading import (
    Row,
    json_file,
    rows_of_lines,
    take,
    take_text,
    take_texts,
)
from pangu_alpha.evaluation.tasks.task import EvaluationTask
from pangu_alpha.files.shown import quoted

_NO_ANSWER = "no_answer"


def read_squad(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads SQuAD 1.1's form; answers are texts, and their offsets are not used.

    CMRC2018 has answers with the offset -1 that are not in the passage, and offsets that do not match.
    """
    items = []
    for context, where, qas in _squad_paragraphs(path, problems):
        for question in qas:
            row = _object(question, f"{where}, a question", problems)
            if row is None:
                continue
            name = take_text(row, "id", problems)
            row = Row(f"{path}, question {name}", row.values)
            if row.values.get("question") == "":  # two questions of CMRC2018's trial set
                problems.leave_out(row.where, "its question is empty")
                continue
            text, answers_of = take_text(row, "question", problems), take(row, "answers", list, problems)
            references = None if answers_of is None else _squad_answers(row, answers_of, problems)
            if name and text is not None and references:
                fields = {"passage": context, "question": text}
                items.append(Item(name, row.where, fields, context, references=references))
    return items


def _squad_paragraphs(path: Path, problems: Problems) -> Iterator[tuple[str, str, list[Any]]]:
    document = json_file(path, dict, problems)
    data = None if document is None else take(Row(str(path), document), "data", list, problems)
    for number, article in enumerate(data or ()):
        row = _object(article, f"{path}, data[{number}]", problems)
        paragraphs = None if row is None else take(row, "paragraphs", list, problems)
        for place, paragraph in enumerate(paragraphs or ()):
            inner = _object(paragraph, f"{path}, data[{number}].paragraphs[{place}]", problems)
            context = None if inner is None else take_text(inner, "context", problems)
            qas = None if inner is None else take(inner, "qas", list, problems)
            if inner is not None and context is not None and qas is not None:
                yield context, inner.where, qas


def _squad_answers(row: Row, answers: list[Any], problems: Problems) -> tuple[str, ...] | None:
    if not answers:
        problems.add(row.where, "'answers' is empty; a test set without answers cannot be scored")
        return None
    rows = [_object(answer, f"{row.where}, answers[{n}]", problems) for n, answer in enumerate(answers)]
    texts = [None if each is None else take_text(each, "text", problems) for each in rows]
    return None if None in texts else tuple(text for text in texts if text is not None)


def _object(value: Any, where: str, problems: Problems) -> Row | None:
    if isinstance(value, dict):
        return Row(where, value)
    problems.add(where, f"must be an object, not {quoted(value)}")
    return None


def read_c3(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads C3's list of [lines, questions, id]; a question's answer is the text of one of its choices.

    One question of the published files has two equal choices; the first of them counts as right.
    """
    items = []
    for number, entry in enumerate(json_file(path, list, problems) or ()):
        where = f"{path}, entry {number}"
        if not _is_c3(entry):
            problems.add(where, f"must be [[lines], [questions], id], not {quoted(entry)}")
            continue
        lines, questions, name = entry
        passage = "\n".join(lines)
        for place, question in enumerate(questions):
            row = _object(question, f"{where} ({name}), question {place}", problems)
            if row is None:
                continue
            text = take_text(row, "question", problems)
            choices = take_texts(row, "choice", problems, least=2)
            answer = take_text(row, "answer", problems)
            if text is None or choices is None or answer is None:
                continue
            if answer not in choices:
                problems.add(row.where, f"'answer' {quoted(answer)} is none of the choices")
                continue
            options = tuple({"choice": choice} for choice in choices)
            fields = {"question": text, "passage": passage}
            gold = choices.index(answer)
            items.append(Item(f"{number}:{name}:{place}", row.where, fields, passage, options, gold))
    return items


def _is_c3(entry: Any) -> bool:
    kinds = (list, list, str)
    if not isinstance(entry, list) or len(entry) != 3:
        return False
    if not all(isinstance(part, kind) for part, kind in zip(entry, kinds, strict=True)):
        return False
    return bool(entry[0]) and all(isinstance(line, str) for line in entry[0])


def read_webqa(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads WebQA: {name: {question, evidences: {name: {answer: [..], evidence}}}}.

    The references are the answers of all evidences that have one; questions without any are left out.
    """
    items = []
    for name, value in (json_file(path, dict, problems) or {}).items():
        row = _object(value, f"{path}, {name}", problems)
        text = None if row is None else take_text(row, "question", problems)
        evidences = None if row is None else take(row, "evidences", dict, problems)
        found: list[str] = []
        for key, evidence in (evidences or {}).items():
            inner = _object(evidence, f"{path}, {name}, {key}", problems)
            texts = None if inner is None else take_texts(inner, "answer", problems)
            found += [each for each in texts or () if each != _NO_ANSWER]
        if row is not None and text is not None and found:
            references = tuple(dict.fromkeys(found))
            items.append(Item(name, row.where, {"question": text}, references=references))
    return items


def read_dureader(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads DuReader 2.0; the passage is the first paragraph of every selected document.

    Questions without a selected document or without an answer are left out, as the released script does.
    """
    items = []
    for number, row in enumerate(rows_of_lines(path, problems)):
        text, documents = take_text(row, "question", problems), take(row, "documents", list, problems)
        references = take(row, "answers", list, problems)
        if text is None or documents is None or references is None:
            continue
        paragraphs = [_first_paragraph(row, place, each, problems) for place, each in enumerate(documents)]
        passage = "\n".join(each for each in paragraphs if each)
        texts = tuple(each for each in references if isinstance(each, str) and each.strip())
        if passage and texts:
            name = str(row.values.get("question_id", number))
            items.append(Item(name, row.where, {"passage": passage, "question": text}, references=texts))
    return items


def _first_paragraph(row: Row, place: int, document: Any, problems: Problems) -> str:
    inner = _object(document, f"{row.where}, documents[{place}]", problems)
    if inner is None or not inner.values.get("is_selected"):
        return ""
    paragraphs = take_texts(inner, "paragraphs", problems)
    return paragraphs[0] if paragraphs else ""
