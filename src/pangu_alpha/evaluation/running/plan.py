"""What one evaluation computes: a task, its template, the number of examples, a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.config.schema import build
from pangu_alpha.evaluation.few_shot import ShotChooser, with_answer_sentence
from pangu_alpha.evaluation.running.network import Reader
from pangu_alpha.evaluation.running.prompts import Prompt, PromptMaker, TooLongError
from pangu_alpha.evaluation.tasks.catalog import choose_template
from pangu_alpha.evaluation.tasks.item import Item, Problems
from pangu_alpha.evaluation.tasks.loading import EvaluationSet
from pangu_alpha.evaluation.tasks.task import EvaluationTask, Template
from pangu_alpha.files.shown import quoted
from pangu_alpha.files.writing import json_text

# Texts that are computed before their samples are written: enough for full batches of every length.
_PAIRS = 256
_PROMPTS = 32
_SHORT_EXAMPLE = 80  # characters; of the released script of CMRC2018
PAPER_SHOTS = "K"  # stands for the number of examples in the paper's few-shot column


@dataclass(frozen=True)
class Plan:
    """One evaluation of one task.

    Args:
        shots: Number of examples, K.
        per_item: Whether each item gets examples of its own.
        greedy: Whether generated answers are the likeliest ones, whatever the template says.
    """

    data: EvaluationSet
    template_name: str
    template: Template
    scoring: str
    shots: int
    seed: int
    per_item: bool = False
    greedy: bool = False

    @property
    def task(self) -> EvaluationTask:
        """The task."""
        return self.data.task

    @property
    def name(self) -> str:
        """Its name in files, which tells it from all other plans of a network."""
        ways = [] if self.task.ways is None else [f"{self.task.ways}way"]
        shots = f"{self.shots}shot"
        return "_".join([self.task.name, self.template_name, *ways, shots, f"seed{self.seed}"])

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.task.name}, {self.shots}-shot, seed {self.seed}"

    @cached_property
    def sampling(self) -> SamplingConfig:
        """How generated answers are drawn."""
        drawn = {} if self.greedy else dict(self.template.sampling)
        whole = {key: int(value) for key, value in drawn.items() if key == "top_k"}
        if not drawn:
            return SamplingConfig(greedy=True, seed=self.seed)
        values: dict[str, Any] = {"top_p": 1.0, "temperature": 1.0, **drawn, **whole, "seed": self.seed}
        return build(SamplingConfig, values)

    @property
    def digest(self) -> str:
        """sha256 of the files that it reads, in hexadecimal."""
        return self.data.digest_of(self.shots, self.seed)

    def maker(self, reader: Reader) -> PromptMaker:
        """What makes the prompts of its items."""
        chooser = ShotChooser(self.task.name, self._examples(), self.shots, self.seed, self.per_item)
        return PromptMaker(self.task, self.template, self.scoring, reader, chooser, self.seed)

    def _examples(self) -> Sequence[Item]:
        """The examples that may be shown, as they are shown."""
        examples = self.data.examples(self.seed)
        if self.template.examples == "whole":
            return examples
        short = [each for example in examples if (each := with_answer_sentence(example)) is not None]
        return [each for each in short if len(self.template.solved_item(each)) < _SHORT_EXAMPLE]

    def chunks(self) -> Iterator[tuple[int, Sequence[Item]]]:
        """Yields (index of the first item, items) that are computed together.

        The division depends on the task alone, so an evaluation that was killed, or that several processes
        share, computes the same batches as one that was not.
        """
        items, size = self.data.items, _PROMPTS
        if self.task.family != "generation":
            widest = max((len(item.choices) for item in items), default=1)
            size = max(1, _PAIRS // min(widest, self.task.ways or widest))
        for start in range(0, len(items), size):
            yield start, items[start : start + size]

    def settings(self) -> dict[str, Any]:
        """What its results depend on besides the network, as plain values."""
        return {
            "task": self.task.name,
            "data": self.digest,
            "items": len(self.data.items),
            "template": self.template_name,
            **json.loads(json_text(asdict(self.template))),  # as run.json gives it back: lists for tuples
            "scoring": self.scoring,
            "ways": self.task.ways,
            "shots": self.shots,
            "seed": self.seed,
            "shots_per_item": self.per_item,
            "greedy": self.greedy,
        }


def make_plans(
    sets: Sequence[EvaluationSet],
    shots: Sequence[int | str],
    seeds: Sequence[int],
    template: str | None = None,
    scoring: str | None = None,
    per_item: bool = False,
    greedy: bool = False,
) -> list[Plan]:
    """Returns the evaluations of all tasks, numbers of examples and seeds, each once.

    Args:
        shots: Numbers of examples; PAPER_SHOTS is the paper's, and left out where the paper has none.
        template: Name of a template that all tasks have; None takes each task's first.
        scoring: Rule for the candidates' scores; None takes the template's.

    Raises:
        ValueError: A task lacks the template, or its template needs fields that its items do not have.
    """
    problems = Problems()
    plans: dict[str, Plan] = {}
    for data in sets:
        try:
            name, chosen = choose_template(data.task, template)
        except ValueError as error:
            problems.found.append(str(error))
            continue
        _check_fields(data, chosen, name, problems)
        for number in shots:
            count = data.task.paper_shots if number == PAPER_SHOTS else int(number)
            if number == PAPER_SHOTS and count == 0:
                continue
            for seed in seeds:
                plan = Plan(data, name, chosen, scoring or chosen.scoring, count, seed, per_item, greedy)
                plans[plan.name] = plan
    problems.raise_any()
    return list(plans.values())


def _check_fields(data: EvaluationSet, template: Template, name: str, problems: Problems) -> None:
    item = data.items[0]
    known = {*item.fields, *(key for choice in item.choices for key in choice)}
    for field in template.fields:
        if field not in known:
            problems.add(
                f"{data.task.name}, template {name}",
                f"no field {quoted(field)}; the items have {', '.join(sorted(known))}",
            )


def check_lengths(plans: Sequence[Plan], reader: Reader) -> list[str]:
    """Makes every prompt once, before the network is loaded, and returns what does not fit as notes.

    Raises:
        TaskFilesError: Lists all items that do not fit into the context at all.
    """
    problems = Problems()
    notes: list[str] = []
    for plan in plans:
        maker, fitted = plan.maker(reader), []
        for item in plan.data.items:
            try:
                fitted.append(maker.make(item))
            except TooLongError as error:
                if str(error) not in problems.found:
                    problems.found.append(str(error))
        notes += _notes(plan, fitted)
    problems.raise_any()
    return notes


def _notes(plan: Plan, prompts: Sequence[Prompt]) -> Iterator[str]:
    fewer = sum(1 for prompt in prompts if prompt.dropped)
    cut = sum(1 for prompt in prompts if prompt.cut)
    if fewer or cut:
        yield (
            f"{plan.title}: to fit the context, {fewer} of {len(prompts)} items lose examples, {cut} also "
            "text of their document; the samples say which"
        )
