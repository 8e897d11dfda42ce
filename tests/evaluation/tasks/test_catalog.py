"""The catalogue: a user's own tasks, what is like what, which files are found, and what is refused."""

from __future__ import annotations

import hand_made
import pytest
from oracles import Knowing, plans_of

from pangu_alpha.config.schema import ConfigError
from pangu_alpha.evaluation.running.execute import computed_path, run_plans
from pangu_alpha.evaluation.running.finish import result_of
from pangu_alpha.evaluation.running.samples import SampleFile
from pangu_alpha.evaluation.tasks.catalog import choose_tasks, choose_template, find_file, load_tasks

OWN = """
mine:
  title: My own questions
  form: choice_lines
  files: ["mine/*.jsonl"]
  family: choice
  metrics: [accuracy]
  fields: {question: q}
  label: right
  templates:
    plain:
      prefix: "{question}"
      scored: "{choice}"
mine_too:
  like: tnews
  title: TNEWS in other words
  templates: {paper: {prefix: "{label}新闻："}}
"""


def test_an_own_task_needs_no_code(tmp_path, eval_data):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.jsonl").write_text(hand_made.own_choices(), "utf-8")
    (tmp_path / "own.yaml").write_text(OWN, "utf-8")
    tasks = load_tasks([tmp_path / "own.yaml"])
    plans = plans_of(tmp_path, ["mine"], tasks=tasks)
    run_plans(Knowing(plans), plans, tmp_path / "out")
    rows = [*SampleFile(computed_path(tmp_path / "out", plans[0])).read()]
    result, _ = result_of(plans[0], rows)
    assert result.main.value == 1 and result.n == 10 and result.chance == pytest.approx(1 / 3)
    assert rows[1]["requests"][1] == ["球队昨晚赢了决赛?", "否"]


def test_a_task_like_another_says_only_what_differs(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN, "utf-8")
    task = load_tasks([tmp_path / "own.yaml"])["mine_too"]
    assert task.templates["paper"].head({"label": "104"}) == "财经新闻："
    assert task.ways == 4 and task.templates["paper"].scored == "{passage}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine: 3", "own.yaml: mine: expected a mapping of keys, found 3"),
        ("mine: {like: tnewz}", "mine.like: there is no task 'tnewz'; did you mean 'tnews'?"),
        ("mine: {like: mine}", "mine.like: goes in a circle: mine -> mine"),
        ("mine: {like: tnews, form: labeled_lines}", "mine.form: 'labeled_lines' is not known; did you mean"),
        ("mine: {like: tnews, titel: x}", "mine.titel: unknown key; did you mean 'title'?"),
        (
            "mine: {like: tnews, family: generation}",
            "templates.paper.scored: a task of family generation must not",
        ),
        (
            "mine: {like: tnews, templates: {paper: {prefix: '{'}}}",
            "prefix: Single '{' encountered in format string",
        ),
        ("mine: {like: tnews, metrics: [acuracy]}", "metrics: 'acuracy' is not known"),
        (
            "mine: {like: cft, templates: {paper: {extract: word}}}",
            "templates.paper.extract",
        ),
        (
            "mine: {like: webqa, templates: {paper: {examples: answer_sentence}}}",
            "examples: answer_sentence needs the field {passage}",
        ),
        (
            "mine: {like: c3, templates: {opencompass: {examples: answer_sentence}}}",
            "templates.opencompass.examples: answer_sentence is only for generated answers",
        ),
    ],
)
def test_task_files_that_are_wrong_are_refused(text, said, tmp_path):
    (tmp_path / "own.yaml").write_text(text, "utf-8")
    with pytest.raises(ConfigError) as error:
        load_tasks([tmp_path / "own.yaml"])
    assert said in str(error.value)


def test_all_is_every_task_whose_files_are_there(eval_data, tmp_path):
    tasks = load_tasks()
    assert {task.name for task in choose_tasks(["all"], tasks, eval_data)} == tasks.keys()
    (tmp_path / "ocnli").mkdir()
    (tmp_path / "ocnli" / "dev.json").write_text("{}")
    assert [task.name for task in choose_tasks(["all"], tasks, tmp_path)] == ["ocnli"]
    assert [task.name for task in choose_tasks(["c3", "all", "c3"], tasks, tmp_path)] == ["c3", "ocnli"]


def test_unknown_names_are_refused(tmp_path):
    tasks = load_tasks()
    with pytest.raises(ValueError, match="there is no task 'tnewz'; did you mean 'tnews'"):
        choose_tasks(["tnewz"], tasks, tmp_path)
    with pytest.raises(ValueError, match="holds the files of no task"):
        choose_tasks(["all"], tasks, tmp_path)
    with pytest.raises(ValueError, match="task chid has only paper, opencompass"):
        choose_template(tasks["chid"], "released")
    assert choose_template(tasks["cluewsc2020"], None)[0] == "ours"


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "DRCD_dev.json").write_text("{}")
    with pytest.raises(ValueError, match="both match"):
        find_file(tmp_path, ["**/DRCD_dev.json"])
