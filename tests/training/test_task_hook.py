"""Tasks scored during training: figures of the saved weights, and the same training as without."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pangu_alpha.config.run import build_train_config
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.evaluation.during_training import TaskHook, training_plans

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))

import hand_made

TASKS = {"names": ["fewclue_eprstmt", "fewclue_chid"], "every": 3, "limit": 9, "batch_size": 2}


@pytest.fixture(scope="module")
def eval_folder(tmp_path_factory):
    """Hand-made evaluation files."""
    folder = tmp_path_factory.mktemp("eval")
    hand_made.write_all(folder)
    return str(folder)


def trained(settings, tasks, output):
    """The lines of metrics.jsonl of a short run."""
    from pangu_alpha.training.loop import train

    run = settings["run"] | {"steps": 4, "output": str(output), "checkpoint": {"every": 4}} | tasks
    config = build_train_config(settings | {"run": run})
    plans = training_plans(config)
    assert train(config, "CPU", hooks=lambda run: [TaskHook(run, plans)] if plans else []) == 0
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_the_figures_are_those_of_the_saved_weights(cpu, settings, eval_folder, tmp_path):
    from pangu_alpha.evaluation.running.execute import compute_plan
    from pangu_alpha.evaluation.running.finish import result_of
    from pangu_alpha.evaluation.scoring import Scorer

    tasks = {"tasks": TASKS | {"data": eval_folder}}
    scored, plain = trained(settings, tasks, tmp_path / "a"), trained(settings, {}, tmp_path / "b")
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in (scored, plain)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    rows = [row for row in scored if "task/fewclue_eprstmt/acc" in row]
    assert [row["step"] for row in rows] == [3, 4]
    scorer = Scorer(tmp_path / "a", batch_size=2)
    config = build_train_config(settings | {"run": settings["run"] | tasks})
    for plan in training_plans(config):
        result, _ = result_of(plan, compute_plan(scorer, plan))
        assert rows[1][f"task/{plan.task.name}/acc"] == result.main.value and result.n == 9


def test_what_a_run_cannot_score_is_refused_before_it_begins(settings, eval_folder):
    def plans(**changes):
        run = settings["run"] | {"tasks": TASKS | {"data": eval_folder} | changes}
        return training_plans(build_train_config(settings | {"run": run}))

    assert [plan.task.name for plan in plans()] == TASKS["names"]
    with pytest.raises(ValueError, match=r"run.tasks.names: webqa has no candidates"):
        plans(names=["webqa"])
    with pytest.raises(ValueError, match="there is no task 'tnewz'; did you mean 'tnews'"):
        plans(names=["tnewz"])
    with pytest.raises(ConfigError, match=r"run.tasks.names: name at least one task"):
        plans(names=[])
    with pytest.raises(ValueError, match="no file of task ocnli"):
        plans(names=["ocnli"], data=f"{eval_folder}/c3")


def test_a_run_without_tasks_is_written_as_before(settings):
    config = build_train_config(settings)
    assert training_plans(config) == [] and "tasks" not in to_mapping(config)["run"]


def test_the_keys_may_be_in_a_file(settings, tmp_path):
    (tmp_path / "tasks.yaml").write_text("data: eval\nnames: [tnews]\nevery: 7\n", "utf-8")
    run = settings["run"] | {"tasks": str(tmp_path / "tasks.yaml")}
    tasks = build_train_config(settings | {"run": run}).run.tasks
    assert (tasks.data, tasks.names, tasks.every, tasks.limit) == ("eval", ("tnews",), 7, 100)
