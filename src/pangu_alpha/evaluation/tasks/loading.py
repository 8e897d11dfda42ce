"""Opens the files of tasks: the items to evaluate, and the solved examples to show before them."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.evaluation.tasks.catalog import find_file
from pangu_alpha.evaluation.tasks.forms import FORMS
from pangu_alpha.evaluation.tasks.forms.labelled import with_labels
from pangu_alpha.evaluation.tasks.item import Item, Problems, rank
from pangu_alpha.evaluation.tasks.reading import unique
from pangu_alpha.evaluation.tasks.task import EvaluationTask
from pangu_alpha.files.reading import read_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationSet:
    """A task with its items.

    Args:
        items: What is evaluated, in the order of the file.
        shots: Solved examples by fold; empty if none are wanted.
        path: File of the items.
        digest: sha256 of the files of the items, in hexadecimal.
        shot_digests: That of each fold's file; empty where the examples are the evaluated items.
    """

    task: EvaluationTask
    items: tuple[Item, ...]
    shots: tuple[tuple[Item, ...], ...]
    path: Path
    digest: str
    shot_digests: tuple[str, ...] = ()

    def examples(self, seed: int) -> tuple[Item, ...]:
        """The solved examples that a seed may draw from."""
        return self.shots[seed % len(self.shots)] if self.shots else ()

    def digest_of(self, shots: int, seed: int) -> str:
        """sha256 of everything that an evaluation reads: examples of other seeds do not change it."""
        other = self.shot_digests[seed % len(self.shot_digests)] if shots and self.shot_digests else ""
        return hashlib.sha256(f"{self.digest}{other}".encode()).hexdigest() if other else self.digest


def load_sets(
    tasks: Sequence[EvaluationTask], data: Path, seeds: Sequence[int] = (), limit: int | None = None
) -> list[EvaluationSet]:
    """Reads the files of tasks.

    Args:
        data: Folder of all evaluation files.
        seeds: Seeds whose solved examples are read, too; none if no examples are shown.
        limit: Number of items to keep of each task, drawn by their ids; None is all.

    Raises:
        TaskFilesError: Lists everything that is wrong in all files, with file and line.
    """
    problems = Problems()
    sets = [_load(task, data, seeds, limit, problems) for task in tasks]
    problems.raise_any()
    for note in problems.left_out:
        logger.warning("%s", note)
    return [each for each in sets if each is not None]


def _load(
    task: EvaluationTask, data: Path, seeds: Sequence[int], limit: int | None, problems: Problems
) -> EvaluationSet | None:
    path = _find(task, data, task.files, problems)
    if path is None:
        return None
    answers = _find(task, data, _answers_of(task, data), problems) if task.answers else None
    if task.answers and answers is None:
        return None
    more = _label_files(task, path)
    task = with_labels(task, [path, *more], problems)
    items = _read(task, path, answers, problems)
    shots: list[tuple[Item, ...]] = []
    digests: list[str] = []
    for fold in range(task.folds) if seeds else ():
        wanted = any(seed % task.folds == fold for seed in seeds)
        examples, file = _examples(task, data, fold, items, problems) if wanted else ((), None)
        shots.append(tuple(examples))
        digests.append("" if file is None else _digest([file]))
    kept = tuple(items if limit is None else _drawn(task, items, limit))
    digest = _digest([path, *([answers] if answers else []), *more])
    return EvaluationSet(task, kept, tuple(shots), path, digest, tuple(digests))


def _label_files(task: EvaluationTask, path: Path) -> list[Path]:
    """The files beside the evaluated one in which further labels are looked for."""
    found = {file for pattern in task.label_files for file in path.parent.glob(pattern) if file.is_file()}
    return sorted(found - {path})


def _answers_of(task: EvaluationTask, data: Path) -> Sequence[str]:
    """The patterns for the answers to the file that was found, where each pattern has its own."""
    if len(task.answers) != len(task.files):
        return task.answers
    return [
        answers for file, answers in zip(task.files, task.answers, strict=True) if find_file(data, [file])
    ][:1]


def _drawn(task: EvaluationTask, items: Sequence[Item], limit: int) -> list[Item]:
    """Some of the items in their order, chosen by hashes: published files may be sorted by label.

    Where the metric assigns candidates within a passage, whole passages are drawn until there are enough.
    """
    unit = {item.id: (item.group or item.id) if task.fills_passages else item.id for item in items}
    sizes = Counter(unit.values())
    chosen: set[str] = set()
    for name in sorted(sizes, key=lambda name: rank(task.name, name, "limit")):
        if sum(sizes[each] for each in chosen) >= limit:
            break
        chosen.add(name)
    return [item for item in items if unit[item.id] in chosen]


def _examples(
    task: EvaluationTask, data: Path, fold: int, items: Sequence[Item], problems: Problems
) -> tuple[Sequence[Item], Path | None]:
    """The solved examples of a fold; the evaluated items where there is no file of others."""
    path = find_file(data, task.shots, fold)
    if path is None:
        if task.shots:
            names = " or ".join(pattern.replace("{fold}", str(fold)) for pattern in task.shots)
            logger.warning(
                "%s: no file of solved examples (%s): they are drawn from the evaluated items, never an item "
                "itself or one of its passage", task.name, names
            )  # fmt: skip
        return items, None
    return _read(task, path, None, problems), path


def _read(task: EvaluationTask, path: Path, answers: Path | None, problems: Problems) -> list[Item]:
    before = len(problems.found)
    try:
        items = list(FORMS[task.form](task, path, answers, problems))
    except OSError as error:
        problems.add(path, f"cannot be read: {error.strerror}")
        return []
    unique([(item.id, item.where) for item in items], problems)
    if not items and len(problems.found) == before:
        problems.add(path, f"holds no item of {task.name}")
    return items


def _find(task: EvaluationTask, data: Path, patterns: Sequence[str], problems: Problems) -> Path | None:
    try:
        path = find_file(data, patterns)
    except ValueError as error:
        problems.found.append(str(error))
        return None
    if path is None:
        names = " or ".join(patterns)
        source = f"; it is published at {task.where}" if task.where else ""
        problems.add(data, f"no file of task {task.name}: looked for {names}{source}")
    return path


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(read_bytes(file))
    return digest.hexdigest()
