"""Two real workers of `evaluate.py tasks`, started by the launcher, leave what one process leaves."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))

import hand_made

from pangu_alpha.cli.evaluate.command import main as evaluate
from pangu_alpha.cli.launch.command import main as launch

pytestmark = pytest.mark.long
TIMES = ("date", "total_evaluation_time_seconds")
TASKS = ("fewclue_ocnli", "fewclue_tnews", "webqa")


def rows(text, times):
    """A file's rows again and again, each time with another text, so that there is something to share."""
    values = [json.loads(line) for line in text.splitlines()]
    return hand_made.lines(
        row | {key: f"{row[key]}，{n}" for key in ("sentence", "sentence1") if key in row}
        for n in range(times)
        for row in values
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """More items than are computed together: 120 of 3 candidates, 150 of 4, 63 whose answer is generated."""
    folder = tmp_path_factory.mktemp("data")
    for name, times in (("ocnli", 12), ("tnews", 10)):
        hand = hand_made.contents()
        (folder / name).mkdir()
        text = rows(hand[f"fewclue/{name}/test_public.json"], times)
        (folder / name / "test_public.json").write_text(text, "utf-8")
        (folder / name / "train_0.json").write_text(hand[f"fewclue/{name}/train_0.json"], "utf-8")
    questions = {}
    for n in range(7):
        questions |= {f"{name}_{n}": value for name, value in json.loads(hand_made.webqa(n)).items()}
    (folder / "webqa").mkdir()
    (folder / "webqa" / "test.json").write_text(json.dumps(questions, ensure_ascii=False), "utf-8")
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory, save_run, data):
    """The options of both ways, without the folder of the results."""
    from pangu_alpha.text.vocabulary import train_vocabulary

    folder = tmp_path_factory.mktemp("run")
    train_vocabulary([*hand_made.TEXTS, *(f"{n}，" for n in range(99))] * 8, folder / "words.model", 120)
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "seq_length": 128}
    checkpoint = save_run(folder, folder / "words.model", **sizes)
    given = ["--checkpoint", str(checkpoint), "--data", str(data), "--tasks", ",".join(TASKS)]
    return ["--device", "CPU", *given, "--shots", "0,2"]


def files(out):
    """Everything in a folder of results that does not tell the time, by its name without the time."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = re.sub(r"\d{4}-\d\d-\d\dT[\d-]+", "TIME", str(path.relative_to(out)))
        if path.suffix == ".jsonl":
            found[name] = path.read_bytes()
        elif path.name.startswith("results_") and path.suffix == ".json":
            value = json.loads(path.read_text("utf-8"))
            found[name] = {key: value[key] for key in value if key not in TIMES}
        elif path.suffix == ".md":
            found[name] = path.read_text("utf-8")
    return found


def test_two_workers_leave_the_files_of_one_process(words, tmp_path):
    one, two, logs = tmp_path / "one", tmp_path / "two", tmp_path / "logs"
    assert evaluate(["tasks", *words, "--output", str(one)]) == 0
    given = ["src/evaluate.py", "--nproc", "2", "--log-dir", str(logs), *words, "--output", str(two)]
    assert launch(given) == 0
    expected, found = files(one), files(two)
    assert sum(name.startswith("samples_") for name in expected) == 6 and found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not [*two.rglob("*part*")]


def test_workers_that_are_started_again_compute_only_what_is_missing(words, tmp_path):
    """Of a run whose second worker was killed, the first one's share is there."""
    out, logs = tmp_path / "out", tmp_path / "logs"
    assert evaluate(["tasks", *words, "--output", str(out), "--share", "0/2"]) == 0
    first = {path.name: path.read_bytes() for path in (out / "computed").iterdir()}
    assert len(first) == 6 and all(name.endswith(".part0of2") for name in first)
    given = ["src/evaluate.py", "--nproc", "2", "--log-dir", str(logs), *words, "--output", str(out)]
    assert launch(given) == 0
    said = "".join(path.read_text("utf-8") for path in logs.rglob("*") if path.is_file())
    assert said.count("groups are there already") == 6
    for name, part in first.items():
        whole = (out / "computed" / name.removesuffix(".part0of2")).read_bytes().splitlines()
        assert {*part.splitlines()} < {*whole}
