"""The published forms of evaluation files, by name: each reads a set's files into items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pangu_alpha.evaluation.tasks.forms import cloze, idioms, labelled, passages, pronouns, sentences
from pangu_alpha.evaluation.tasks.item import Item, Problems
from pangu_alpha.evaluation.tasks.task import EvaluationTask

__all__ = ["FORMS", "labelled"]

Form = Callable[[EvaluationTask, Path, "Path | None", Problems], Sequence[Item]]

FORMS: Mapping[str, Form] = {
    "labelled_lines": labelled.read,
    "pronoun_lines": pronouns.read,
    "idiom_lines": idioms.read_fewclue,
    "idiom_tags": idioms.read_clue,
    "squad": passages.read_squad,
    "webqa": passages.read_webqa,
    "dureader": passages.read_dureader,
    "c3": passages.read_c3,
    "cloze_queries": cloze.read_queries,
    "cloze_records": cloze.read_records,
    "masked_word_lines": cloze.read_masked,
    "sentence_cloze": sentences.read,
    "question_lines": labelled.read_questions,
    "choice_lines": labelled.read_choices,
}
