"""What an evaluation task consists of, as data: its files, their form, its templates and its metrics.

The tasks are YAML; `catalog` reads those that are shipped, and a user's own in the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Literal

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate
from pangu_alpha.evaluation.tasks.item import Item

Scoring = Literal["exact", "sum", "released", "released_c3", "released_csl", "opencompass"]
Family = Literal["choice", "generation", "perplexity"]
Examples = Literal["whole", "answer_sentence"]
Extraction = Literal["stop", "gold_length"]


@dataclass(frozen=True)
class Template:
    """How an item becomes text.

    Args:
        prefix: Text up to what is scored, or up to where the answer is generated; {names} are fields.
        scored: Text after `prefix`, whose tokens a candidate's score counts. Empty for generation.
        words: What {label} stands for, by label; may hold fields itself. Empty if the item's file names it.
        answer: What follows `prefix` in a solved example of a generation task; {answer} is a reference.
        examples: `whole` shows examples as they are. `answer_sentence` shows of their passage only the
            sentence with the answer, and only those of less than 80 characters in all, as the released script
            does for the few-shot column of CMRC2018 ("dynamic").
        separator: Between two examples, and between the last one and the item.
        scoring: Which tokens count, and what their sum is divided by; see `scoring_rules`.
        cut_left, cut_right: Fields that may lose sentences at their beginning, or at their end, if an item
            is longer than the context, in this order.
        stop: Texts that end a generated answer.
        max_new_tokens: Longest generated answer.
        extract: `stop` takes the text up to the stop; `gold_length` takes as many tokens as the reference
            has, which tells its length, as the released script of PD&CFT does.
        sampling: Keys of SamplingConfig, such as top_k; empty is greedy.
    """

    prefix: str
    scored: str = ""
    words: dict[str, str] = field(default_factory=dict)
    answer: str = "{answer}"
    examples: Examples = "whole"
    separator: str = "\n"
    scoring: Scoring = "exact"
    cut_left: tuple[str, ...] = ()
    cut_right: tuple[str, ...] = ()
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = option(32, "longest generated answer", unit="tokens", at_least=1)
    extract: Extraction = "stop"
    sampling: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("prefix", "scored", "answer"):
            try:
                list(Formatter().parse(getattr(self, name)))
            except ValueError as error:
                yield f"{name}: {error}; write {{{{ and }}}} for braces that are no field"
        if self.examples == "answer_sentence" and "{passage}" not in str(self.prefix):
            yield "examples: answer_sentence needs the field {passage}, of which the sentence is taken"

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that the template needs, in order; without "answer"."""
        texts = [self.prefix, self.scored, *self.words.values()]
        names = (name for text in texts for _, name, _, _ in Formatter().parse(text) if name)
        return tuple(dict.fromkeys(names))

    def head(self, values: Mapping[str, str]) -> str:
        """The text before what is scored or generated."""
        return self.prefix.format(**self._with_word(values))

    def tail(self, values: Mapping[str, str]) -> str:
        """The text that is scored."""
        return self.scored.format(**self._with_word(values))

    def solved(self, values: Mapping[str, str]) -> str:
        """A solved example; `values` hold the right candidate's fields, or "answer"."""
        end = self.tail(values) if self.scored else self.answer.format(**values)
        return self.head(values) + end

    def solved_item(self, item: Item) -> str:
        """An item as a solved example."""
        if item.gold is not None and item.choices:
            return self.solved({**item.fields, **item.choices[item.gold]})
        return self.solved({**item.fields, "answer": item.references[0]})

    def _with_word(self, values: Mapping[str, str]) -> Mapping[str, str]:
        if not self.words or "label" not in values:
            return values
        return {**values, "label": self.words[values["label"]].format(**values)}


@dataclass(frozen=True)
class EvaluationTask:
    """One evaluation set and how it is asked.

    Args:
        title: The set's name for people.
        form: Form of its files; see `forms`.
        files: Where the evaluated file lies below the data folder, as patterns; the first match counts.
        answers: The file with the answers, where they are not in the same one.
        shots: The file of solved examples; {fold} is the seed modulo `folds`. None takes the evaluated file.
        folds: Number of files of solved examples.
        fields: Name of a field of the template -> key of the file.
        label: Key of the label.
        label_type: How the published file writes labels.
        label_word: Key of the label's name in words, where the files have it and templates have no words.
        label_files: Files beside the evaluated one whose labels are candidates too, as patterns, where
            templates have no words: the evaluated file may not have all. Their rows need no other key.
        label_words: The name of each label, by label, where neither templates nor files have it.
        dropped: Labels whose rows are no items, such as those on which the annotators did not agree.
        ways: Number of candidates: the right one and others, drawn by the seed; None takes all.
        family: `choice` compares candidates, `generation` lets the network answer, `perplexity` measures one
            given text.
        metrics: Names of metrics.
        paper_shots: Number of examples in the paper's few-shot column; 0 if the paper has none.
        licence: Of the published files.
        where: The public repository that has them.
    """

    title: str
    form: str
    files: tuple[str, ...]
    family: Family
    metrics: tuple[str, ...]
    templates: dict[str, Template]
    answers: tuple[str, ...] = ()
    shots: tuple[str, ...] = ()
    folds: int = option(1, "number of files of solved examples", at_least=1)
    fields: dict[str, str] = field(default_factory=dict)
    label: str = "label"
    label_type: Literal["text", "number"] = "text"
    label_word: str | None = None
    label_files: tuple[str, ...] = ()
    label_words: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    ways: int | None = option(None, "number of candidates", at_least=2)
    paper_shots: int = option(0, "examples in the paper's few-shot column", at_least=0)
    licence: str = "none stated"
    where: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        validate(self)

    @property
    def fills_passages(self) -> bool:
        """Whether the metric's items are passages, whose blanks are filled together."""
        return "cmrc2019" in self.metrics

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.templates:
            yield "templates: give at least one"
        templates = self.templates if isinstance(self.templates, dict) else {}  # it may be faulty itself
        for name, template in templates.items():
            scores = self.family != "generation"
            if scores != bool(template.scored):
                word = "needs" if scores else "must not have"
                yield f"templates.{name}.scored: a task of family {self.family} {word} it"
            if scores and template.examples == "answer_sentence":
                yield f"templates.{name}.examples: answer_sentence is only for generated answers"
