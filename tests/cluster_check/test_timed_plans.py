"""The plans whose steps are timed, and what is predicted for them from logs; nothing is trained here."""

from __future__ import annotations

import json

import pytest
import yaml
from records_of import failed, links, speed

from pangu_alpha.cluster_check.calibration import Measured, planner_files
from pangu_alpha.cluster_check.measure import plans, startup
from pangu_alpha.cluster_check.measure.timed_run import MOST, STEPS, cases, config_file, logged_seconds
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.records import write_record
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.cluster_check.training_run import loaded
from pangu_alpha.config.run import unrunnable
from pangu_alpha.files.writing import write_text
from pangu_alpha.files.yaml_text import yaml_text

RANKS = 2
SETUP = Setup("CPU", (tuple(range(RANKS)),), (tuple(range(RANKS)),))


def place_of(out, measurement, device="CPU", setup=SETUP):
    folder = out / "checks" / measurement
    folder.mkdir(parents=True, exist_ok=True)
    return Place(measurement, device, 0, out, folder, setup)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16, 24])
def test_plans_for_npus_do_the_same_work_and_can_be_run(ranks, tmp_path):
    known = cases("Ascend", ranks)
    place = place_of(tmp_path, "plan_1", "Ascend")
    configs = [loaded(config_file(case, place, tmp_path / "run", tmp_path / "data")) for case in known]
    assert {config.samples_per_step for config in configs} == {4 * ranks}
    assert {config.parallel.devices for config in configs} == {ranks}
    assert len({str(config.parallel) for config in configs}) == len(known) <= MOST
    assert not [problem for config in configs for problem in unrunnable(config, ranks > 1)]
    assert len(known) == (3 if ranks == 1 else MOST)


def log(place, case, seconds):
    """Writes what a timed run leaves: its configuration and the rate of each step."""
    run = place.folder / "run"
    run.mkdir(exist_ok=True)
    config = config_file(case, place, run, place.out / "data")
    (run / "config.yaml").write_text(config.read_text("utf-8"), "utf-8")
    tokens = loaded(config).samples_per_step * case.length
    lines = [
        {
            "step": n + 1,
            "samples": (n + 1) * tokens // case.length,
            "loss": 1.0,
            "tokens_per_s": tokens / seconds,
        }
        for n in range(STEPS)
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    write_record(place.folder, 0, {"case": case.name})


@pytest.fixture
def predicted(tmp_path):
    """Predicts runs that took so many seconds, by case."""
    times = {1 << 10: 1e-3, 1 << 22: 2e-2}
    files = planner_files(SETUP, Measured(speed(), links("server", [times] * RANKS), 8e9))
    for name, values in files.items():
        write_text(tmp_path / name, yaml_text(values))

    def run(seconds):
        for number, (case, each) in enumerate(zip(cases("CPU", RANKS), seconds, strict=True)):
            if each is not None:
                log(place_of(tmp_path, plans.measurement_of(number)), case, each)
        return plans.measure(place_of(tmp_path, plans.PREDICTED, device=""))

    return run


def test_steps_as_predicted_pass_and_others_do_not(predicted):
    parts = predicted([1.0] * MOST)["predicted"]["parts"]
    good = predicted([1.3 * each for each in parts])
    assert good["measured"] == pytest.approx([1.3 * each for each in parts])
    assert good["predicted"]["parts"] == parts and "shipped" not in good["predicted"]
    assert not failed("plans", {"predicted": [good]})
    assert good["fitted"][0] == "matmul"
    swapped = predicted(sorted(parts)[:: 1 if parts[0] > parts[1] else -1])
    what = [each.what for each in failed("plans", {"predicted": [swapped]})]
    assert any("rank correlation" in each for each in what)


def test_a_plan_that_died_is_left_out(predicted):
    names = predicted([0.1, None, 0.4, 0.05, 0.4])["cases"]
    assert names == [case.name for n, case in enumerate(cases("CPU", RANKS)) if n != 1]


def test_one_plan_that_is_left_fits_no_constants(predicted):
    record = predicted([0.1, None, None, None, None])
    assert record["predicted"].keys() == {"parts"} and record["fitted"] == []
    assert [each.what for each in failed("plans", {"predicted": [record]})][0] == "plans that were measured"


def test_without_the_planner_s_files_there_is_nothing_to_compare(tmp_path):
    with pytest.raises(ValueError, match=r"planner: has not written clusters\.yaml yet"):
        plans.measure(place_of(tmp_path, plans.PREDICTED, device=""))


def test_a_start_is_told_from_its_log(tmp_path, monkeypatch):
    place = place_of(tmp_path, "cold")
    log(place, cases("CPU", 1)[0], 0.25)
    assert logged_seconds(place.folder / "run") == pytest.approx([0.25] * STEPS)
    monkeypatch.setattr(startup, "run_case", lambda case, place: place.folder / "run")
    monkeypatch.setattr(startup, "os", type("Os", (), {"environ": {}}))
    found = startup.measure(place)
    assert found["first"] == found["usual"] == pytest.approx(0.25) and found["started"] > 0.0
    assert startup.os.environ["MS_COMPILER_CACHE_PATH"] == str(place.folder.parent / "graphs")
    assert yaml.safe_load((place.folder / "run" / "config.yaml").read_text("utf-8"))["run"]["steps"] == STEPS
