"""Scores evaluation tasks every so many steps of a training run, as one of its hooks.

The weights are copied into a network of its own, without dropout and with the operators for scoring, so that
nothing of the training changes. Rank 0 scores, and the other ranks wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pangu_alpha.config.run import TrainConfig
from pangu_alpha.config.scored_tasks import TasksConfig
from pangu_alpha.evaluation.running.execute import compute_plan
from pangu_alpha.evaluation.running.finish import result_of
from pangu_alpha.evaluation.running.plan import Plan, check_lengths, make_plans
from pangu_alpha.evaluation.tasks.catalog import choose_tasks, load_tasks
from pangu_alpha.evaluation.tasks.loading import load_sets
from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.training.hooks.hook import Done, Hook, Place, Run


def training_plans(config: TrainConfig) -> list[Plan]:
    """Reads the tasks of run.tasks before a run begins; [] if it has none.

    Raises:
        ValueError: Lists everything that is wrong with tasks and files, or that the run cannot score.
    """
    chosen: TasksConfig | None = config.run.tasks
    if chosen is None:
        return []
    if not config.data.vocabulary:
        raise ValueError("run.tasks: needs data.vocabulary, to encode the texts")
    if config.parallel.tp * config.parallel.pp > 1:
        raise ValueError(
            "run.tasks: a run that MindSpore partitions has no whole network to score with; leave it out "
            "(run.tasks=null) and evaluate the checkpoints"
        )
    tasks = choose_tasks(chosen.names, load_tasks(), Path(chosen.data))
    for task in tasks:
        if task.family != "choice":
            raise ValueError(
                f"run.tasks.names: {task.name} has no candidates; evaluate its checkpoints instead"
            )
    plans = make_plans(load_sets(tasks, Path(chosen.data), (), chosen.limit), (0,), (0,))
    check_lengths(plans, _reader(config, config.model.seq_length))
    return plans


def _reader(config: TrainConfig, context: int) -> Any:
    tokenizer = PanguTokenizer(config.data.vocabulary or "")
    return SimpleNamespace(tokenizer=tokenizer, context=context, end_of_document=tokenizer.eod_id)


class TaskHook(Hook):
    """Scores tasks; the figures go to metrics.jsonl and TensorBoard as task/NAME/FIGURE."""

    name = "tasks"
    at_end = True

    def __init__(self, run: Run, plans: Sequence[Plan]) -> None:
        assert run.config.run.tasks is not None
        self._run, self._plans = run, plans
        self._network: Any = None
        self.every = run.config.run.tasks.every

    def run(self, place: Place, done: Done) -> None:
        """See Hook."""
        if self._run.world.rank != 0:
            return
        if self._network is None:
            self._network = self._make()
        self._network.take(self._run.engine.model)
        entry: dict[str, Any] = {"step": place.step}
        for plan in self._plans:
            result, _ = result_of(plan, compute_plan(self._network, plan))
            entry |= {f"task/{plan.task.name}/{each.name}": each.value for each in result.measured}
        words = "  ".join(f"{key.removeprefix('task/')} {entry[key]:.4f}" for key in entry if key != "step")
        self._run.report.validation(entry, words)

    def _make(self) -> Any:
        from pangu_alpha.evaluation.scoring import CopiedNetwork  # loads MindSpore

        config, tasks = self._run.config, self._run.config.run.tasks
        assert tasks is not None
        tokenizer = PanguTokenizer(config.data.vocabulary or "")
        ends = tokenizer.id_of(self._run.streams.state["end_of_document"])
        return CopiedNetwork(config.model, tokenizer, ends, tasks.batch_size)
