"""Turns what was computed of plans into results: figures, intervals, samples, a table and a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pangu_alpha.evaluation.metrics import Figure, metric
from pangu_alpha.evaluation.results.files import Run, write_results
from pangu_alpha.evaluation.results.published import published
from pangu_alpha.evaluation.results.result import Sample, TaskResult, item_sums, measured
from pangu_alpha.evaluation.results.table import markdown
from pangu_alpha.evaluation.running.execute import computed_path
from pangu_alpha.evaluation.running.passages import passages_of
from pangu_alpha.evaluation.running.plan import Plan
from pangu_alpha.evaluation.running.samples import SampleFile
from pangu_alpha.evaluation.statistics import chance, majority_share
from pangu_alpha.files.writing import json_text

_NOTES = ("where", "nats", "tokens", "scores", "tied", "dropped_shots", "cut_characters", "text")


def write_all_results(out: Path, plans: Sequence[Plan], network: dict[str, Any], started: datetime) -> str:
    """Writes the results of plans that are computed to the end.

    Args:
        network: What run.json says about the network.
        started: When the evaluation began; part of the files' names.

    Returns:
        The table, and where the files are.
    """
    results, samples = [], {}
    for plan in plans:
        result, rows = result_of(plan, list(SampleFile(computed_path(out, plan)).read()))
        results.append(result)
        samples[result.name] = rows
    checkpoint = str(network["checkpoint"])
    run = Run(
        checkpoint, f"checkpoint={checkpoint}", network, started, (datetime.now() - started).total_seconds()
    )
    file = write_results(out, run, results, samples)
    return f"{markdown(checkpoint, results)}\n\n{file}"


def result_of(plan: Plan, lines: Sequence[dict[str, Any]]) -> tuple[TaskResult, list[Sample]]:
    """Computes the figures of a plan from its items.

    Raises:
        ValueError: The items are not all there.
    """
    task = plan.task
    if len(lines) != len(plan.data.items):
        raise ValueError(
            f"{plan.title}: {len(lines)} of {len(plan.data.items)} items are computed; run it again"
        )
    rows = passages_of(lines) if task.fills_passages else lines
    figures = [
        figure
        for name in task.metrics
        for figure in metric(name).figures(
            predictions=[_prediction(plan, row) for row in rows],
            references=[_reference(plan, row) for row in rows],
        )
    ]
    groups = [_short(row["group"]) if row["group"] else f"item {row['number']}" for row in rows]
    compared = task.family == "choice"
    result = TaskResult(
        task=task.name,
        title=task.title,
        split=plan.data.path.name,
        template=plan.template_name,
        scoring=plan.scoring if task.family != "generation" else _drawn(plan),
        ways=task.ways,
        shots=plan.shots,
        seed=plan.seed,
        n=len(rows),
        measured=measured(figures, groups if len({*groups}) < len(groups) else None),
        chance=chance([len(row["doc"]["choices"]) for row in lines]) if compared else None,
        majority=_majority(plan, lines) if compared and plan.task.ways is None else None,
        published=published(task.name, plan.shots),
        counts=_counts(lines),
        fingerprint=plan.digest,
    )
    return result, _samples(rows, groups, figures)


def _prediction(plan: Plan, row: dict[str, Any]) -> Any:
    return row["nats"][0] if plan.task.family == "perplexity" else row["prediction"]


def _reference(plan: Plan, row: dict[str, Any]) -> Any:
    if plan.task.family == "perplexity":
        return row["tokens"][0]
    return row["gold"] if plan.task.family == "choice" else row["doc"]["references"]


def _drawn(plan: Plan) -> str:
    how = plan.sampling
    if how.greedy:
        return "greedy"
    parts = [f"top_k {how.top_k}"] if how.top_k else []
    return ", ".join([*parts, f"top_p {how.top_p:g}", f"temperature {how.temperature:g}"])


def _majority(plan: Plan, lines: Sequence[dict[str, Any]]) -> float:
    """Share right of always giving one label, or one place where the candidates differ from item to item.

    Where the wrong candidates are drawn by hashes, a place says nothing, and there is no such share.
    """
    labels = all("label" in item.choices[0] for item in plan.data.items)
    return majority_share([row["doc"]["choices"][row["gold"]] if labels else row["gold"] for row in lines])


def _counts(lines: Sequence[dict[str, Any]]) -> dict[str, int]:
    counts = {
        "ties": sum(1 for row in lines if row.get("tied")),
        "prompts_with_fewer_examples": sum(1 for row in lines if row["dropped_shots"]),
        "documents_cut": sum(1 for row in lines if row["cut_characters"]),
    }
    return {name: count for name, count in counts.items() if count}


def _samples(
    rows: Sequence[dict[str, Any]], groups: Sequence[str], figures: Sequence[Figure]
) -> list[Sample]:
    sums = item_sums(figures)
    return [
        Sample(
            number=row["number"],
            id=row["id"],
            doc=row["doc"],
            target=_target(row),
            requests=[tuple(pair) for pair in row["requests"]],
            answers=_answers(row),
            prediction=row.get("prediction"),
            sums=sums[place],
            group=groups[place],
            shots=row["shots"],
            notes={name: row[name] for name in _NOTES if name in row},
        )
        for place, row in enumerate(rows)
    ]


def _target(row: dict[str, Any]) -> int | str:
    if row["gold"] is None:
        return row["doc"]["references"][0]
    return row["gold"] if isinstance(row["gold"], int) else json_text(row["gold"], indent=None)


def _answers(row: dict[str, Any]) -> list[Any]:
    if "text" in row:
        return [row["text"]]
    return [(-nats, greedy) for nats, greedy in zip(row["nats"], row["greedy"], strict=True)]


def _short(text: str) -> str:
    """A name for a passage that is itself the name of its group."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
