"""The harness's files of our tasks: one for each task of the catalogue, which repeats nothing of it."""

from __future__ import annotations

import pytest
import yaml

from pangu_alpha.evaluation.tasks.catalog import load_tasks
from pangu_alpha.integrations.lm_eval_tasks import FOLDER

TASKS = {name: task for name, task in load_tasks().items() if task.family != "perplexity"}


def test_every_task_of_the_catalogue_has_a_file():
    found = {path.stem for path in FOLDER.glob("*.yaml") if not path.name.startswith("_")}
    assert found == TASKS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_a_file_names_its_task_and_nothing_more(name):
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    tag = {"tag": "pangu_fewclue"} if name.startswith("fewclue_") and not name.endswith("_all") else {}
    assert content == {"include": "_catalog.yaml", "task": f"pangu_{name}", **tag}
    assert TASKS[name].templates
