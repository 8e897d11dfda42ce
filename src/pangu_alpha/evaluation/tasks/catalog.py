"""All known evaluation tasks: those shipped as YAML, and a user's own in the same form.

A task may name another by `like`, and then says only what differs from it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pangu_alpha.config.schema import ConfigError, build, merge, nearest, read_yaml
from pangu_alpha.evaluation.metrics import METRICS
from pangu_alpha.evaluation.tasks.forms import FORMS
from pangu_alpha.evaluation.tasks.task import EvaluationTask, Template
from pangu_alpha.files.shown import quoted

SHIPPED = ("paper.yaml", "fewclue.yaml")
ALL = "all"
_MOST_LIKES = 10  # longest chain of tasks that are like one another


def load_tasks(files: Iterable[str | Path] = ()) -> dict[str, EvaluationTask]:
    """Returns the shipped tasks, and those of further files, by name.

    Args:
        files: YAML files of the same form; a task in them replaces a shipped one of its name.

    Raises:
        ConfigError: Lists every problem of the files.
    """
    values: dict[str, Any] = dict(_shipped())
    problems = []
    for file in files:
        for name, task in read_yaml(file).items():
            if not isinstance(task, Mapping):
                problems.append(f"{file}: {name}: expected a mapping of keys, found {quoted(task)}")
            values[name] = task
    if problems:
        raise ConfigError(problems)
    tasks = {}
    for name in values:
        try:
            tasks[name] = _build(name, values)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return tasks


@functools.cache
def _shipped() -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    for name in SHIPPED:
        values |= read_yaml(Path(__file__).with_name(name))
    return MappingProxyType(values)


def _build(name: str, values: Mapping[str, Any]) -> EvaluationTask:
    task = build(EvaluationTask, {**_resolved(name, values), "name": name}, name)
    if task.form not in FORMS:
        raise ConfigError([f"{name}.form: {quoted(task.form)} is not known; {nearest(task.form, FORMS)}"])
    unknown = [name for name in task.metrics if name not in METRICS]
    if unknown or not task.metrics:
        known = nearest(unknown[0] if unknown else "", METRICS)
        raise ConfigError([f"{name}.metrics: {quoted(unknown[0] if unknown else '')} is not known; {known}"])
    return task


def _resolved(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    own, chain = dict(values[name]), [name]
    while (base := own.pop("like", None)) is not None:
        if not isinstance(base, str) or base not in values:
            raise ConfigError([f"{name}.like: there is no task {quoted(base)}; {nearest(base, values)}"])
        if base in chain or len(chain) > _MOST_LIKES:
            raise ConfigError([f"{name}.like: goes in a circle: {' -> '.join([*chain, base])}"])
        chain.append(base)
        own = merge(dict(values[base]), own) | (
            {"like": values[base]["like"]} if "like" in values[base] else {}
        )
    return own


def choose_tasks(
    words: Sequence[str], tasks: Mapping[str, EvaluationTask], data: Path
) -> list[EvaluationTask]:
    """Returns the tasks that words name, in order and each once; `all` is every task whose files are there.

    Raises:
        ValueError: There is no such task, or none for `all`; names the nearest.
    """
    chosen: dict[str, EvaluationTask] = {}
    problems = []
    for word in words:
        if word == ALL:
            chosen |= {name: task for name, task in tasks.items() if find_file(data, task.files) is not None}
        elif word in tasks:
            chosen[word] = tasks[word]
        else:
            problems.append(f"--tasks: there is no task {quoted(word)}; {nearest(word, tasks)}")
    if problems:
        raise ValueError("\n".join(problems))
    if not chosen:
        raise ValueError(
            f"--tasks all: {data} holds the files of no task; `evaluate.py list` shows which are looked for"
        )
    return list(chosen.values())


def choose_template(task: EvaluationTask, name: str | None) -> tuple[str, Template]:
    """Returns a task's template and its name; without a name its first, which is the paper's if it has one.

    Raises:
        ValueError: The task has no template of that name.
    """
    if name is None:
        return next(iter(task.templates.items()))
    if name not in task.templates:
        known = ", ".join(task.templates)
        raise ValueError(
            f"--template {quoted(name)}: task {task.name} has only {known}; leave it out for its first"
        )
    return name, task.templates[name]


def find_file(data: Path, patterns: Sequence[str], fold: int = 0) -> Path | None:
    """Returns the file of the first pattern that matches below a folder, or None.

    Raises:
        ValueError: A pattern matches several files.
    """
    for pattern in patterns:
        found = sorted(path for path in data.glob(pattern.replace("{fold}", str(fold))) if path.is_file())
        if len(found) > 1:
            names = " and ".join(str(path) for path in found[:3])
            raise ValueError(
                f"{data}: {names} both match {pattern}; name a folder with one of them by --data"
            )
        if found:
            return found[0]
    return None
