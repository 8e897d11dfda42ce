"""Writes the results of an evaluation in the form of lm-evaluation-harness, with a table and a picture.

results_<time>.json          figures, standard errors, settings
samples_<result>_<time>.jsonl one object for each item
results_<time>.md, .png      the same for people
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pangu_alpha.evaluation.results.picture import draw_results
from pangu_alpha.evaluation.results.result import Sample, TaskResult, digest
from pangu_alpha.evaluation.results.table import markdown
from pangu_alpha.files.writing import finite, json_text, replacing_file, write_json, write_text

logger = logging.getLogger(__name__)

TASK_VERSION = 1.0  # of our tasks, as the harness versions them


@dataclass(frozen=True)
class Run:
    """What was evaluated, and how.

    Args:
        model: Name of the model for people, such as its folder.
        model_args: Arguments that name it again, "checkpoint=runs/mine".
        settings: Further settings, JSON values: batch size, limit, digests of weights and vocabulary.
        started: When the evaluation began.
        seconds: How long it took.
    """

    model: str
    model_args: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    started: datetime = field(default_factory=datetime.now)
    seconds: float = 0.0


def write_results(
    folder: str | Path,
    run: Run,
    results: Sequence[TaskResult],
    samples: Mapping[str, Sequence[Sample]],
) -> Path:
    """Writes all files of an evaluation; the results file last, so that it exists only if the others do.

    Args:
        folder: Made if it is missing.
        samples: The items of each result, by the result's name.

    Returns:
        The results file.

    Raises:
        OSError: A file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    time = run.started.isoformat().replace(":", "-")
    hashes = {}
    for result in results:
        rows = samples.get(result.name, ())
        hashes[result.name] = write_samples(folder / samples_name(result.name, time), result, rows)
    stem = folder / f"results_{time}"
    write_text(stem.with_name(f"{stem.name}.md"), markdown(run.model, results) + "\n")
    draw_results(results, stem.with_name(f"{stem.name}.png"), run.model)
    path = stem.with_name(f"{stem.name}.json")
    write_json(path, results_object(run, results, hashes))
    return path


def samples_name(result: str, time: str) -> str:
    """Name of the file with the items of a result."""
    return f"samples_{result}_{time}.jsonl"


def write_samples(path: Path, result: TaskResult, samples: Iterable[Sample]) -> str:
    """Writes the items of a result in the order of their file.

    Returns:
        A digest of items, prompts and right answers, as the harness forms it.
    """
    figures, hashes = {each.key: each for each in result.measured}, []
    with replacing_file(path) as stream:
        for sample in sorted(samples, key=lambda each: each.number):
            row = sample.row(figures)
            hashes.append(row["doc_hash"] + row["prompt_hash"] + row["target_hash"])
            stream.write(json_text(row, indent=None) + "\n")
    return digest("".join(hashes))


def results_object(run: Run, results: Sequence[TaskResult], hashes: Mapping[str, str]) -> dict[str, Any]:
    """The content of the results file, with what is ours under config.pangu_alpha."""
    by_name = {each.name: each for each in results}
    ours = {
        "settings": dict(run.settings),
        "results": {name: _plain(dataclasses.asdict(each)) for name, each in by_name.items()},
    }
    return {
        "results": {name: _figures(each) for name, each in by_name.items()},
        "group_subtasks": {name: [] for name in by_name},
        "configs": {name: _task_config(each) for name, each in by_name.items()},
        "versions": dict.fromkeys(by_name, TASK_VERSION),
        "n-shot": {name: each.shots for name, each in by_name.items()},
        "higher_is_better": {
            name: {m.name: m.combination != "perplexity" for m in each.measured}
            for name, each in by_name.items()
        },
        "n-samples": {name: {"original": each.n, "effective": each.n} for name, each in by_name.items()},
        "config": {"model": "pangu_alpha", "model_args": run.model_args, "pangu_alpha": ours},
        "date": run.started.timestamp(),
        "pretty_env_info": f"Python {platform.python_version()}, {platform.platform()}",
        "task_hashes": dict(hashes),
        "model_source": "pangu_alpha",
        "model_name": run.model,
        "model_name_sanitized": "".join(c if c.isalnum() or c in "-_." else "_" for c in run.model),
        "total_evaluation_time_seconds": f"{run.seconds:.3f}",
    }


def _figures(result: TaskResult) -> dict[str, Any]:
    values: dict[str, Any] = {"alias": result.alias}
    for each in result.measured:
        error = each.interval.error
        values[each.key] = each.value
        values[f"{each.name}_stderr,{each.rule}"] = error if math.isfinite(error) else "N/A"
    return values


def _task_config(result: TaskResult) -> dict[str, Any]:
    return {
        "task": result.name,
        "task_alias": result.alias,
        "dataset_path": "json",
        "test_split": result.split,
        "output_type": "generate_until" if result.chance is None else "multiple_choice",
        "num_fewshot": result.shots,
        "metric_list": [{"metric": name} for name in dict.fromkeys(m.name for m in result.measured)],
        "metadata": {"version": TASK_VERSION, "template": result.template, "scoring": result.scoring},
    }


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(finite(value)))
