"""Running: resumed and shared evaluations give the same files as one process; bad items are named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from oracles import Network, plans_of

from pangu_alpha.evaluation.results.reading import read_results
from pangu_alpha.evaluation.running import execute
from pangu_alpha.evaluation.running.execute import (
    OtherRunError,
    Share,
    hold_run,
    put_together,
    read_run,
    run_plans,
    started_of,
)
from pangu_alpha.evaluation.running.finish import write_all_results
from pangu_alpha.evaluation.running.plan import Plan

NAMES = ["fewclue_tnews", "cmrc2018", "cmrc2019", "chid", "wplc", "webqa"]
ABOUT = {"checkpoint": "runs/x", "fingerprint": "f"}


@pytest.fixture
def small_groups(monkeypatch):
    """Several groups of each task."""

    def chunks(self):
        items = self.data.items
        return ((start, items[start : start + 3]) for start in range(0, len(items), 3))

    monkeypatch.setattr(Plan, "chunks", chunks)


def evaluated(data, out, network=None, share=None, names=NAMES):
    """Evaluates into a folder."""
    plans = plans_of(data, names, (0, 2), (3,))
    hold_run(out, ABOUT, plans)
    run_plans(network or Network(), plans, out, share)
    return plans


def finished(plans, out):
    """The files of results, as texts without times, by their names without time."""
    printed = write_all_results(out, plans, read_run(out)["network"], started_of(out, plans))
    time = started_of(out, plans).isoformat().replace(":", "-")
    files = {}
    for path in out.glob("*_*"):
        content = path.read_bytes()
        if path.suffix == ".json":
            value = json.loads(content)
            del value["date"], value["total_evaluation_time_seconds"]
            content = value
        files[path.name.replace(time, "T")] = content
    assert "| TNEWS" in printed or "FewCLUE TNEWS" in printed
    return files


class KilledError(BaseException):
    """Stands for the end of a process."""


class Killed(Network):
    """Ends in the n-th call."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def predict(self, pairs):
        self.calls -= 1
        if self.calls == 0:
            raise KilledError
        return super().predict(pairs)


def test_a_killed_evaluation_is_resumed_to_the_same_files(eval_data, tmp_path, small_groups):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    plans = evaluated(eval_data, whole)
    expected = finished(plans, whole)
    assert len(expected) == 3 + 12  # results as .json, .md and .png; samples of six tasks, twice
    for calls in (1, 2, 7, 20):
        with pytest.raises(KilledError):
            evaluated(eval_data, resumed, Killed(calls))
    file = max((resumed / "computed").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    with file.open("ab") as stream:
        stream.write(b'{"number": 3, "id"')  # a line that a kill has cut
    plans = evaluated(eval_data, resumed)
    found = finished(plans, resumed)
    found.pop(next(name for name in found if name.endswith(".png")))
    assert found == {name: content for name, content in expected.items() if not name.endswith(".png")}


def test_what_is_there_is_not_computed_again(eval_data, tmp_path, small_groups):
    evaluated(eval_data, tmp_path)
    again = Network()
    plans = evaluated(eval_data, tmp_path, again)
    assert again.asked == 0 and finished(plans, tmp_path)


def test_a_group_that_is_not_whole_is_computed_again(eval_data, tmp_path, small_groups):
    (plan,) = plans_of(eval_data, ["ocnli"])
    run_plans(Network(), [plan], tmp_path)
    path = execute.computed_path(tmp_path, plan)
    whole = path.read_bytes()
    lines = whole.split(b"\n")
    path.write_bytes(b"\n".join([*lines[:4], b""]))  # one group, and one line of the second
    network = Network()
    run_plans(network, [plan], tmp_path)
    assert path.read_bytes() == whole and network.asked == 3 * (len(plan.data.items) - 3)


@pytest.mark.parametrize("size", [2, 3])
def test_shares_put_together_are_what_one_process_computes(size, eval_data, tmp_path, small_groups):
    one, many = tmp_path / "one", tmp_path / "many"
    expected = finished(evaluated(eval_data, one), one)
    for rank in reversed(range(size)):
        plans = evaluated(eval_data, many, share=Share(rank, size))
    put_together(plans, many, size)
    assert not [path for path in (many / "computed").iterdir() if "part" in path.name]
    assert finished(plans, many).keys() == expected.keys()
    found = finished(plans, many)
    assert all(found[name] == expected[name] for name in expected if not name.endswith(".png"))


def test_a_share_that_is_missing_is_noticed(eval_data, tmp_path, small_groups):
    plans = evaluated(eval_data, tmp_path, share=Share(0, 2))
    put_together(plans, tmp_path, 2)
    with pytest.raises(ValueError, match=r"of 15 items are computed; run it again"):
        write_all_results(tmp_path, plans, ABOUT, datetime.now())


def test_a_bad_item_is_named_and_what_was_before_it_stays(eval_data, tmp_path, small_groups):
    (plan,) = plans_of(eval_data, ["ocnli"])
    bad = plan.data.items[7].fields["second"]

    class Faulty(Network):
        def predict(self, pairs):
            if any(bad in self.tokenizer.decode(whole) for _, whole in pairs):
                raise ValueError("holds ids outside the vocabulary")
            return super().predict(pairs)

    with pytest.raises(ValueError) as error:
        run_plans(Faulty(), [plan], tmp_path)
    assert str(error.value) == f"{plan.data.items[7].where} (item 7:7): holds ids outside the vocabulary"
    assert len(execute.computed_path(tmp_path, plan).read_text("utf-8").splitlines()) == 6


def test_nats_that_are_not_finite_end_the_evaluation(eval_data, tmp_path):
    class Broken(Network):
        def nats_of(self, prefix, whole):
            return np.full(len(whole) - len(prefix), np.nan)

    with pytest.raises(ValueError, match=r"dev.json, line 1 \(item 0:0\): its nats are not finite"):
        run_plans(Broken(), plans_of(eval_data, ["ocnli"]), tmp_path)


def test_a_folder_of_another_network_or_of_other_settings_is_refused(eval_data, tmp_path):
    plans = plans_of(eval_data, ["ocnli"])
    hold_run(tmp_path, ABOUT, plans)
    hold_run(tmp_path, ABOUT, plans_of(eval_data, ["c3"]))  # plans may be added
    with pytest.raises(
        OtherRunError, match="holds results of the network with fingerprint 'f', which is 'g' now"
    ):
        hold_run(tmp_path, ABOUT | {"fingerprint": "g"}, plans)
    with pytest.raises(
        OtherRunError, match="ocnli_paper_0shot_seed0 with scoring 'exact', which is 'sum' now"
    ):
        hold_run(tmp_path, ABOUT, plans_of(eval_data, ["ocnli"], scoring="sum"))
    other = [replace(plan, template=replace(plan.template, separator="\n\n")) for plan in plans]
    with pytest.raises(OtherRunError, match=r"with separator '\\n', which is '\\n\\n' now"):
        hold_run(tmp_path, ABOUT, other)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(OtherRunError, match="is no file of an evaluation"):
        hold_run(tmp_path, ABOUT, plans)


def test_examples_and_seeds_may_be_added_later(eval_data, tmp_path):
    """The files of examples belong to the plans that show them, each seed's to its own."""
    for shots, seeds in (((0,), (0,)), ((0, 2), (0,)), ((0, 2), (0, 1))):
        plans = plans_of(eval_data, ["fewclue_ocnli"], shots, seeds)
        hold_run(tmp_path, ABOUT, plans)
    digests = {(plan.shots, plan.seed): plan.digest for plan in plans}
    assert digests[0, 0] == digests[0, 1] and len({*digests.values()}) == 3
    shutil.copytree(eval_data / "fewclue/ocnli", tmp_path / "other/ocnli")
    file = tmp_path / "other/ocnli/train_1.json"
    file.write_text(file.read_text("utf-8").replace("新车", "旧车"), "utf-8")
    changed = plans_of(tmp_path / "other", ["fewclue_ocnli"], (0, 2), (0, 1))
    hold_run(tmp_path, ABOUT, [plan for plan in changed if (plan.shots, plan.seed) != (2, 1)])
    with pytest.raises(OtherRunError, match="ocnli_paper_2shot_seed1 with data"):
        hold_run(tmp_path, ABOUT, changed)


def test_results_say_what_was_counted(eval_data, tmp_path):
    plans = plans_of(eval_data, ["fewclue_tnews", "cmrc2019", "cmrc2018"], (0,), (0, 1))
    hold_run(tmp_path, ABOUT, plans)
    run_plans(Network(), plans, tmp_path)
    printed = write_all_results(tmp_path, plans, ABOUT, datetime(2026, 1, 1))
    content = json.loads((tmp_path / "results_2026-01-01T00-00-00.json").read_text("utf-8"))
    ours = content["config"]["pangu_alpha"]["results"]["fewclue_tnews_paper_4way_0shot_seed1"]
    assert (ours["ways"], ours["chance"], ours["n"], ours["scoring"]) == (4, 0.25, 15, "exact")
    passages = content["config"]["pangu_alpha"]["results"]["cmrc2019_paper_0shot_seed0"]
    assert passages["n"] == 4 and passages["chance"] == pytest.approx(np.mean([1 / 3] * 4 + [1 / 4] * 6))
    assert "top_p 0.8, temperature 0.8" in printed and "25.00" in printed
    recorded = read_results(tmp_path)["fewclue_tnews_paper_4way_0shot_seed0"]
    assert len(recorded.ids) == 15 and [*recorded.figures] == ["acc,none"]


def test_a_network_without_knowledge_is_at_chance(tmp_path, eval_data):
    """Wilson's interval of 3,000 made-up items of three labels holds a third."""
    shutil.copytree(eval_data / "clue" / "ocnli_public", tmp_path / "ocnli")
    rows = [
        json.loads(line) for line in (tmp_path / "ocnli" / "dev.json").read_text("utf-8").splitlines()[:9]
    ]
    many = [row | {"sentence1": f"{row['sentence1']}第{n}", "id": n} for n in range(333) for row in rows]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in many)
    (tmp_path / "ocnli" / "dev.json").write_text(text, "utf-8")
    plans = plans_of(tmp_path, ["ocnli"])
    run_plans(Network(), plans, tmp_path / "out")
    result, _ = execute_result(plans[0], tmp_path / "out")
    assert result.n == 2997 and result.main.interval.low < 1 / 3 < result.main.interval.high
    assert result.majority == pytest.approx(1 / 3)


def execute_result(plan, out):
    """The result of a plan that is computed."""
    from pangu_alpha.evaluation.running.finish import result_of
    from pangu_alpha.evaluation.running.samples import SampleFile

    return result_of(plan, [*SampleFile(execute.computed_path(out, plan)).read()])
