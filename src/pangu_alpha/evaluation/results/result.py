"""What an evaluation found: one result for each task, number of examples and seed, and its items."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pangu_alpha.evaluation.metrics import Figure
from pangu_alpha.evaluation.results.published import Published
from pangu_alpha.evaluation.statistics import Interval, interval
from pangu_alpha.files.writing import json_text


@dataclass(frozen=True)
class Measured:
    """A figure with its interval; shares are in [0, 1]."""

    name: str
    rule: str
    value: float
    interval: Interval
    combination: str = "ratio"

    @property
    def key(self) -> str:
        """The key of results files, "acc,none"."""
        return f"{self.name},{self.rule}"

    @property
    def is_share(self) -> bool:
        """Whether the figure is shown in percent."""
        return self.combination != "perplexity"


def measured(
    figures: Sequence[Figure], groups: Sequence[Hashable] | None = None, seed: int = 0
) -> tuple[Measured, ...]:
    """Gives figures their 95 % intervals.

    Args:
        groups: The group of each item, such as its passage; None if all items are independent.
        seed: Of the bootstrap.
    """
    return tuple(
        Measured(each.name, each.rule, each.value, interval(each, groups, seed), each.combination)
        for each in figures
    )


@dataclass(frozen=True)
class TaskResult:
    """The figures of one task, asked in one way.

    Args:
        task: Name of the task.
        title: The set's name for people.
        split: The file that was evaluated.
        template: Name of the template.
        scoring: Which tokens of a candidate count, "exact", or how an answer was generated, "greedy".
        ways: Number of candidates, where they were drawn; None for all of them.
        shots: Number of solved examples asked for.
        seed: Decides the examples, the drawn candidates and ties.
        n: Number of items.
        measured: Figures; the first is the one that the paper prints.
        chance: Expected share right of guessing; None for generated answers.
        majority: Share right of always giving the most frequent answer; None for generated answers.
        published: The paper's figures for this task and number of examples.
        counts: Facts a reader must know, by name, such as "ties" or "prompts_with_fewer_examples".
        fingerprint: Digest of the items, as the evaluated file gives them.
    """

    task: str
    title: str
    split: str
    template: str
    scoring: str
    ways: int | None
    shots: int
    seed: int
    n: int
    measured: tuple[Measured, ...]
    chance: float | None = None
    majority: float | None = None
    published: tuple[Published, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """Unique name in files: task, template, number of candidates and examples, and seed."""
        ways = [] if self.ways is None else [f"{self.ways}way"]
        return "_".join([self.task, self.template, *ways, f"{self.shots}shot", f"seed{self.seed}"])

    @property
    def alias(self) -> str:
        """The set's name with the number of candidates, for tables."""
        return self.title if self.ways is None else f"{self.title}, {self.ways}-way"

    @property
    def main(self) -> Measured:
        """The figure that the paper prints."""
        return self.measured[0]


@dataclass(frozen=True)
class Sample:
    """An item, what was asked, and what came out.

    Args:
        number: Place of the item in the evaluated file, from 0.
        id: The set's own name of the item.
        doc: The item's fields, JSON values.
        target: The right answer: index of a candidate, or a text.
        requests: (context, continuation) of every candidate, or (context, settings) of a generation.
        answers: For each request (sum of log p in nats, whether greedy), or the generated text.
        prediction: What was counted: an index, or the text cut out of the answer.
        sums: What the item contributes to each figure, by the figure's key.
        group: Items of one group belong to one passage.
        shots: Names of the examples that were shown, in their order.
        notes: Further facts, such as the mean nats beside the sum, or what was cut; JSON values.
    """

    number: int
    id: str
    doc: Mapping[str, Any]
    target: int | str
    requests: Sequence[tuple[str, Any]]
    answers: Sequence[tuple[float, bool] | str]
    prediction: Any
    sums: Mapping[str, Sequence[float]]
    group: str = ""
    shots: Sequence[str] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def row(self, figures: Mapping[str, Figure | Measured]) -> dict[str, Any]:
        """The item as lm-evaluation-harness writes it, with what is ours under "pangu_alpha".

        Args:
            figures: The figures by key, for their formulas.
        """
        arguments = {
            f"gen_args_{place}": {"arg_0": context, "arg_1": rest}
            for place, (context, rest) in enumerate(self.requests)
        }
        return {
            "doc_id": self.number,
            "doc": dict(self.doc),
            "target": str(self.target),
            "arguments": arguments,
            "resps": [[_text(answer)] for answer in self.answers],
            "filtered_resps": [_text(answer) for answer in self.answers],
            "filter": "none",
            "metrics": sorted({key.partition(",")[0] for key in self.sums}),
            "doc_hash": digest(json_text(dict(self.doc), indent=2)),
            "prompt_hash": digest(self.requests[0][0] if self.requests else ""),
            "target_hash": digest(str(self.target)),
            **_first_of_each_name(self.sums, figures),
            "pangu_alpha": {
                "id": self.id,
                "group": self.group,
                "prediction": self.prediction,
                "sums": {key: list(map(float, sums)) for key, sums in self.sums.items()},
                "combinations": {key: figures[key].combination for key in self.sums},
                "shots": list(self.shots),
                **self.notes,
            },
        }


def _text(answer: tuple[float, bool] | str) -> list[str] | str:
    """An answer as the harness writes it: (log p, is greedy) becomes two texts."""
    return answer if isinstance(answer, str) else [str(float(answer[0])), str(bool(answer[1]))]


def _first_of_each_name(
    sums: Mapping[str, Sequence[float]], figures: Mapping[str, Figure | Measured]
) -> dict[str, float]:
    """The item's own figures by bare name, as the harness has them; of several rules the first counts."""
    values: dict[str, float] = {}
    for key, row in sums.items():
        figure = Figure.of_key(key, [row], figures[key].combination)
        values.setdefault(figure.name, float(figure.per_item[0]))
    return values


def item_sums(figures: Sequence[Figure]) -> list[dict[str, list[float]]]:
    """What each item contributes to each figure, as `Sample.sums` holds it; one mapping an item."""
    return [{each.key: each.sums[item].tolist() for each in figures} for item in range(len(figures[0].sums))]


def digest(text: str) -> str:
    """sha256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
