"""A task of the catalogue as a task of lm-evaluation-harness: the files, texts, examples and metrics of ours.

The harness's `--num_fewshot` is the number of our examples, not a draw of its own. A candidate's score is the
sum of log p of its scored text, as in `evaluate.py tasks --scoring sum`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from pangu_alpha.evaluation.running.answers import extract
from pangu_alpha.evaluation.running.candidates import pick
from pangu_alpha.evaluation.running.network import Reader
from pangu_alpha.evaluation.running.plan import Plan, make_plans
from pangu_alpha.evaluation.running.prompts import Prompt, PromptMaker
from pangu_alpha.evaluation.tasks.catalog import choose_template, load_tasks
from pangu_alpha.evaluation.tasks.loading import load_sets
from pangu_alpha.evaluation.tasks.task import EvaluationTask, Template
from pangu_alpha.files.shown import quoted
from pangu_alpha.integrations.lm_eval_tasks import figures

DATA = "PANGU_EVALUATION_DATA"
PREFIX = "pangu_"
VERSION = 2.0
_ENDLESS = 1 << 60  # context of a model that is not known


@dataclass(frozen=True)
class Asked:
    """What a harness's configuration asks for.

    Args:
        task: Of the catalogue.
        data: Folder of the files.
        seed: Of examples, drawn candidates and ties.
        checkpoint: Of the model, whose context decides what is left out of a text; None if it is another one.
        vocabulary: Of the checkpoint, where it is not beside it.
    """

    task: EvaluationTask
    template_name: str
    template: Template
    data: Path
    seed: int = 0
    checkpoint: str | None = None
    vocabulary: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Asked:
        """Reads a configuration: `dataset_kwargs` of its YAML, and the metadata of the command line.

        Raises:
            ValueError: There is no such task or template, no folder, or the harness cannot do what is asked.
        """
        given = {**(config.get("metadata") or {}), **(config.get("dataset_kwargs") or {})}
        name = str(given.get("task", config["task"].removeprefix(PREFIX)))
        tasks = load_tasks([given["task_file"]] if "task_file" in given else ())
        if name not in tasks:
            raise ValueError(f"{config['task']}: there is no task {quoted(name)} in the catalogue")
        folder = given.get("data") or os.environ.get(DATA)
        if not folder:
            raise ValueError(
                f"{config['task']}: no folder of evaluation files: name it in {DATA}, or by --metadata "
                '\'{"data": "DIR"}\''
            )
        template_name, template = choose_template(tasks[name], given.get("template"))
        _check(tasks[name], template_name, template)
        where = {key: str(given[key]) for key in ("checkpoint", "vocabulary") if given.get(key)}
        seed = int(given.get("seed", 0))
        return cls(tasks[name], template_name, template, Path(folder).expanduser(), seed, **where)

    @cached_property
    def reader(self) -> Reader:
        """How the model reads; one without end, and without a vocabulary, where it is not ours."""
        if self.checkpoint is None:
            return SimpleNamespace(context=_ENDLESS, tokenizer=None)
        return _reader(self.checkpoint, self.vocabulary)

    def plan(self, shots: int) -> Plan:
        """The evaluation with a number of examples."""
        (data,) = load_sets([self.task], self.data, [self.seed] if shots else [])
        (plan,) = make_plans([data], [shots], [self.seed], self.template_name, "sum")
        return plan


def _check(task: EvaluationTask, name: str, template: Template) -> None:
    remedy = "use `evaluate.py tasks`"
    if task.family == "perplexity":
        raise ValueError(f"{task.name}: its figure counts tokens, which the harness does not know; {remedy}")
    if template.extract == "gold_length":
        raise ValueError(
            f"{task.name}: template {name} cuts answers at a number of tokens, which the harness does not "
            f"know; {remedy}, or take another template"
        )


@lru_cache(maxsize=4)  # all tasks of a run have the same model
def _reader(checkpoint: str, vocabulary: str | None) -> Reader:
    from pangu_alpha.inference.load import describe_for_inference  # loads MindSpore

    return describe_for_inference(checkpoint, vocabulary)


class CatalogTask(ConfigurableTask):
    """A task whose documents, requests and figures come from the catalogue.

    Args:
        config: The harness's configuration. Its metadata may have `data`, `seed` and `template`, and has the
            model's arguments; `dataset_kwargs` may also name a `task` and a `task_file`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._asked = Asked.of(config)
        self._prompts: dict[tuple[int, int], Prompt] = {}
        self._makers: dict[int, tuple[Plan, PromptMaker]] = {}
        chosen = {
            "task": config["task"],
            "output_type": "generate_until" if self._generates else "multiple_choice",
            "test_split": "test",
            "target_delimiter": "",
            "fewshot_delimiter": self._asked.template.separator,
            "metric_list": [],
            "metadata": {**(config.get("metadata") or {}), "version": VERSION},
            **({"generation_kwargs": self._sampling()} if self._generates else {}),
        }
        super().__init__(config=chosen)

    @property
    def _generates(self) -> bool:
        return self._asked.task.family == "generation"

    def _sampling(self) -> dict[str, Any]:
        plan, template = self._plan(0)[0], self._asked.template
        how = {"until": list(template.stop), "max_gen_toks": template.max_new_tokens}
        if plan.sampling.greedy:
            return {**how, "do_sample": False}
        drawn = {key: getattr(plan.sampling, key) for key in ("top_p", "top_k", "temperature")}
        return {**how, "do_sample": True, **{key: value for key, value in drawn.items() if value}}

    def _plan(self, shots: int) -> tuple[Plan, PromptMaker]:
        if shots not in self._makers:
            plan = self._asked.plan(shots)
            self._makers[shots] = plan, plan.maker(self._asked.reader)
        return self._makers[shots]

    def _prompt(self, doc: Mapping[str, Any], shots: int | None = None) -> Prompt:
        shots = (self.config.num_fewshot or 0) if shots is None else shots
        key = (shots, doc["number"])
        if key not in self._prompts:
            plan, maker = self._plan(shots)
            self._prompts[key] = maker.make(plan.data.items[doc["number"]])
        return self._prompts[key]

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Reads the files; called by the harness's constructor."""
        rows = [
            {
                "number": number,
                "id": item.id,
                "where": item.where,
                **{f"field_{name}": value for name, value in item.fields.items()},
                "choices": [next(iter(choice.values())) for choice in item.choices],
                "references": list(item.references),
            }
            for number, item in enumerate(self._plan(0)[0].data.items)
        ]
        self.dataset = {"test": Dataset.from_list(rows)}

    def fewshot_docs(self) -> None:
        """None: the examples are ours."""

    def doc_to_text(self, doc: Mapping[str, Any], doc_to_text: Any = None) -> str:
        """The text before what is scored or generated, of the first candidate, without examples."""
        return self._prompt(doc, 0).texts[0][0]

    def doc_to_target(self, doc: Mapping[str, Any], doc_to_target: Any = None) -> int | str:
        """Place of the right candidate, or the first right answer."""
        item = self._prompt(doc).item
        return item.references[0] if item.gold is None else item.gold

    def fewshot_context(
        self,
        doc: Mapping[str, Any],
        num_fewshot: int,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """The text before each candidate, with the examples.

        Raises:
            ValueError: The item does not fit into the model's context, or a chat is asked for.
        """
        if system_instruction or apply_chat_template:
            raise ValueError(
                f"{self.config.task}: its templates are texts to be continued; leave out "
                "--system_instruction and --apply_chat_template"
            )
        return [before for before, _ in self._prompt(doc, num_fewshot).texts]

    def construct_requests(self, doc: Mapping[str, Any], ctx: Sequence[str], **kwargs: Any) -> list[Instance]:
        """One request for each candidate, or one to generate the answer."""
        how = {key: kwargs[key] for key in ("metadata",) if key in kwargs}
        if self._generates:
            arguments: list[tuple[Any, ...]] = [(ctx[0], dict(self.config.generation_kwargs))]
        else:
            scored = [text for _, text in self._prompt(doc).texts]
            arguments = [*zip(ctx, scored, strict=True)]
        kind = "generate_until" if self._generates else "loglikelihood"
        return [
            Instance(request_type=kind, doc=doc, arguments=each, idx=place, **how)
            for place, each in enumerate(arguments)
        ]

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """What an item gives to each figure."""
        item, task = self._prompt(doc).item, self._asked.task
        if self._generates:
            found = extract(
                self._asked.template, results[0], item.references[0], self._asked.reader.tokenizer
            )
            return figures.of_item(task.metrics, found, item.references)
        sums = [-log for log, _ in results]
        if task.fills_passages:
            return dict.fromkeys(figures.of_passages(), (item.group, sums, item.gold))
        chosen, _ = pick(sums, item, task.name, self._asked.seed)
        return figures.of_item(task.metrics, chosen, item.gold)

    def aggregation(self) -> dict[str, figures.Aggregation]:
        """How the items become the figures."""
        if self._asked.task.fills_passages:
            return figures.of_passages()
        item = self._prompt(self.task_docs[0]).item
        reference = item.references if self._generates else item.gold
        return figures.aggregations(self._asked.task.metrics, reference)

    def higher_is_better(self) -> dict[str, bool]:
        """True for all: perplexity is not there."""
        return dict.fromkeys(self.aggregation(), True)
