"""The tasks for people: titles, labels and examples in two languages, beside the forms of inference.tasks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pangu_alpha.config.schema import read_yaml
from pangu_alpha.inference.tasks import TASKS


@cache
def task_list() -> list[dict[str, Any]]:
    """Every task as /v1/tasks describes it."""
    words = read_yaml(Path(__file__).parent / "forms.yaml")
    return [_described(name, words[name]) for name in TASKS]


def _described(name: str, words: dict[str, Any]) -> dict[str, Any]:
    task = TASKS[name]
    return {
        "id": name,
        "title": words["title"],
        "summary": task.summary,
        "prompt": task.prompt,
        "fields": [{"name": field, "multiline": False, **words["fields"][field]} for field in task.fields],
        "answer": {"name": task.answer, "label": words["answer"]},
        "separator": task.separator,
        "stop": list(task.stop),
        "examples": words.get("examples", []),
    }
