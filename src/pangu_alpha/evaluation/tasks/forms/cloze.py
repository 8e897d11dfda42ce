"""Word cloze: CMRC2017 (queries) and PD&CFT (records), whose words are spaced, and WPLC (masked words).

Only the text before the blank stands before the answer, so the sentences are moved as the released script
does: the rest first, then the two sentences before the query, then the query up to its blank.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pangu_alpha.evaluation.tasks.item import Item, Problems
from pangu_alpha.evaluation.tasks.reading import rows_of_lines, take_text, text_lines
from pangu_alpha.evaluation.tasks.task import EvaluationTask
from pangu_alpha.files.shown import quoted

_BLANK = "XXXXX"
_BAR = "|||"
_MASK = "<mask>"


def _parts(line: str) -> list[str]:
    """The parts of a line, without the spaces between the words."""
    return ["".join(part.split()) for part in line.split(_BAR)]


def read_queries(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads CMRC2017: documents that end with a line `<qid_0> ||| query`, and a file of answers by qid."""
    gold = _answers(path, answers, problems)
    items, sentences = [], []
    for where, line in text_lines(path, problems):
        parts = _parts(line)
        if len(parts) != 2:
            problems.add(where, f"must be `n {_BAR} words` or `<qid_n> {_BAR} query`, not {quoted(line)}")
        elif not parts[0].startswith("<qid"):
            sentences.append(parts[1])
        else:
            item = _query(parts[0], parts[1], sentences, where, gold, problems)
            items += [item] if item is not None else []
            sentences = []
    if sentences:
        problems.add(path, "ends with a document that has no query; the file was cut off")
    return items


def _answers(path: Path, answers: Path | None, problems: Problems) -> dict[str, str]:
    if answers is None:
        problems.add(path, f"the file of its answers, `<qid_0> {_BAR} word`, is missing")
        return {}
    rows = [(where, _parts(line)) for where, line in text_lines(answers, problems)]
    for where, parts in rows:
        if len(parts) != 2 or not all(parts):
            problems.add(where, f"must be `<qid_n> {_BAR} word`")
    return {parts[0]: parts[1] for _, parts in rows if len(parts) == 2 and all(parts)}


def _query(
    name: str, query: str, sentences: list[str], where: str, gold: dict[str, str], problems: Problems
) -> Item | None:
    if name not in gold:
        problems.add(where, f"no answer for {quoted(name)}")
        return None
    if _BLANK not in query:
        problems.add(where, f"the query has no {_BLANK}")
        return None
    place = next((n for n, sentence in enumerate(sentences) if _BLANK in sentence), len(sentences))
    near = sentences[max(place - 2, 0) : place]
    rest = sentences[: max(place - 2, 0)] + sentences[place + 1 :]
    fields = _fields([*rest, *near], query)
    return Item(name.strip("<>"), where, fields, references=(gold[name],))


def _fields(sentences: list[str], query: str) -> dict[str, str]:
    """The passage without sentences that repeat the blank, and the query up to it."""
    passage = "".join(sentence for sentence in sentences if _BLANK not in sentence)
    return {"passage": passage, "query": query.partition(_BLANK)[0]}


def read_records(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads PD&CFT: the last line of a record, which has a third part, is its query and its answer."""
    items: list[Item] = []
    for number, (where, sentences, query, answer) in enumerate(_records(path, problems)):
        if not query:  # one record of CFT's human test set
            problems.leave_out(where, "its query is empty")
        elif _BLANK not in query:
            problems.add(where, f"the query has no {_BLANK}")
        elif not answer:
            problems.add(where, "the answer is empty")
        else:
            items.append(Item(str(number), where, _fields(sentences, query), references=(answer,)))
    return items


def _records(path: Path, problems: Problems) -> Iterator[tuple[str, list[str], str, str]]:
    sentences: list[str] = []
    first = where = str(path)
    for where, line in text_lines(path, problems):
        parts = _parts(line)
        if parts[0] == "1" and sentences:
            problems.add(first, "the record that begins here has no answer; it was cut off")
            sentences = []
        first = first if sentences else where
        if len(parts) == 2:
            sentences.append(parts[1])
        elif len(parts) == 3:
            yield where, sentences, parts[1], parts[2]
            sentences = []
        else:
            problems.add(
                where, f"must be `n {_BAR} words`, or `n {_BAR} query {_BAR} answer`, not {quoted(line)}"
            )
    if sentences:
        problems.add(first, "the record that begins here has no answer; the file was cut off")


def read_masked(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    """Reads WPLC: rows of masked_text with one <mask>, and correct_word."""
    items = []
    for number, row in enumerate(rows_of_lines(path, problems)):
        text, word = take_text(row, "masked_text", problems), take_text(row, "correct_word", problems)
        if text is not None and text.count(_MASK) != 1:
            problems.add(row.where, f"'masked_text' must have {_MASK} once, not {text.count(_MASK)} times")
        elif text is not None and word is not None:
            choices = ({"choice": word},)
            before = text.partition(_MASK)[0]
            items.append(Item(str(number), row.where, {"before": before}, "", choices, 0, (word,)))
    return items
