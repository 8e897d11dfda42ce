"""The files have lm-evaluation-harness's keys, and are read back to the same figures."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from pangu_alpha.evaluation.results.reading import newest_results, read_results
from pangu_alpha.files.reading import ReadError


def test_the_keys_of_the_harness(made, tmp_path):
    path = made.write(tmp_path, made.choice([0, 1, 2, 0, 0, 0, 0, 1], shots=1))
    name = "ocnli_paper_1shot_seed0"
    assert path.name == "results_2026-01-01T03-04-05.000006.json"
    content = json.loads(path.read_text("utf-8"))
    share = 5 / 8
    error = pytest.approx((share * (1 - share) / 8) ** 0.5)
    assert content["results"][name] == {"alias": "OCNLI", "acc,none": share, "acc_stderr,none": error}
    assert content["n-shot"] == {name: 1} and content["versions"] == {name: 1.0}
    assert content["n-samples"] == {name: {"original": 8, "effective": 8}}
    assert content["higher_is_better"] == {name: {"acc": True}}
    assert content["configs"][name]["num_fewshot"] == 1
    assert content["config"]["model_args"] == "checkpoint=run"
    ours = content["config"]["pangu_alpha"]
    assert ours["settings"] == {"batch_size": 8}
    assert ours["results"][name]["majority"] == 0.5 and ours["results"][name]["counts"]["ties"] == 1
    rows = [json.loads(line) for line in (tmp_path / f"samples_{name}_{path.stem[8:]}.jsonl").open("rb")]
    assert [row["doc_id"] for row in rows] == [*range(8)]
    row = rows[4]
    assert row["arguments"]["gen_args_1"] == {"arg_0": "前", "arg_1": "错"}
    assert row["resps"] == [[["-1.5", "True"]], [["-2.5", "False"]]]
    assert row["filtered_resps"] == [["-1.5", "True"], ["-2.5", "False"]]
    assert (
        row["target"] == "1" and row["acc"] == 0.0 and row["metrics"] == ["acc"] and row["filter"] == "none"
    )
    assert row["target_hash"] == hashlib.sha256(b"1").hexdigest()
    assert row["pangu_alpha"]["shots"] == ["7"] and row["pangu_alpha"]["prediction"] == 0
    joined = "".join(r["doc_hash"] + r["prompt_hash"] + r["target_hash"] for r in rows)
    assert content["task_hashes"][name] == hashlib.sha256(joined.encode()).hexdigest()


def test_figures_are_read_back(made, answers, tmp_path):
    groups = [*"aabbccdd"]
    choice, generated = made.choice([0] * 8, groups=groups), made.answer(*answers)
    made.write(tmp_path, choice, generated)
    found = read_results(tmp_path)
    assert [*found] == ["ocnli_paper_0shot_seed0", "dureader_paper_0shot_seed0"]
    first, second = found.values()
    assert first.ids == tuple(f"item {number}" for number in range(8)) and first.groups == tuple(groups)
    assert len(set(second.groups)) == 40
    for (result, _), recorded in ((choice, first), (generated, second)):
        assert [*recorded.figures] == [each.key for each in result.measured]
        for each in result.measured:
            assert recorded.figures[each.key].value == pytest.approx(each.value, abs=1e-12)


def test_samples_are_written_in_the_order_of_their_items(made, tmp_path):
    result, samples = made.choice([0, 1, 2, 0, 0, 0, 0, 1])
    one = made.write(tmp_path / "one", (result, samples))
    two = made.write(tmp_path / "two", (result, samples[::-1]))
    names = sorted(each.name for each in one.parent.iterdir())
    assert names == sorted(each.name for each in two.parent.iterdir())
    for name in names:
        assert (one.parent / name).read_bytes() == (two.parent / name).read_bytes() or name.endswith(".png")


def test_the_newest_results_are_taken(made, tmp_path):
    made.write(tmp_path, made.choice([0] * 8), day=1)
    newest = made.write(tmp_path / "model", made.choice([1] * 8), day=2)
    assert newest_results(tmp_path) == newest
    assert read_results(tmp_path)["ocnli_paper_0shot_seed0"].figures["acc,none"].value == 0.25


def test_files_of_the_harness_itself_are_read(tmp_path):
    (tmp_path / "results_2026.json").write_text(json.dumps({"results": {"arc": {"acc,none": 0.5}}}), "utf-8")
    rows = [
        {"doc_id": number, "doc_hash": "d", "target_hash": "t", "metrics": ["acc", "text"], "filter": "none",
         "acc": float(number), "text": "x"}
        for number in (0, 1)
    ]  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "samples_arc_2026.jsonl").write_text(lines, "utf-8")
    found = read_results(tmp_path)["arc"]
    assert found.task == "arc" and [*found.figures] == ["acc,none"]
    np.testing.assert_array_equal(found.figures["acc,none"].per_item, [0, 1])


def test_damaged_files_are_named(made, tmp_path):
    with pytest.raises(FileNotFoundError, match="no results_"):
        read_results(tmp_path)
    path = made.write(tmp_path, made.choice([0] * 8))
    samples = next(tmp_path.glob("samples_*"))
    content = samples.read_text("utf-8")
    cases = {
        content[:-200]: "line 8.*not JSON",
        content.replace('"doc_id": 3', '"number": 3'): "line 4.*doc_id",
        content.replace(
            '"combinations": {"acc,none": "ratio"}', '"combinations": {"acc,none": "no"}'
        ): "formula",
        content + content.splitlines()[0] + "\n": "not there once for every item",
        "[]\n": "line 1: not an item",
        "": "holds no figure",
    }
    for text, said in cases.items():
        samples.write_text(text, "utf-8")
        with pytest.raises(ReadError, match=said):
            read_results(path)
    samples.unlink()
    with pytest.raises(FileNotFoundError, match="the items of 'ocnli_paper_0shot_seed0' are needed"):
        read_results(path)
    path.write_text("{}", "utf-8")
    with pytest.raises(ReadError, match="holds no results"):
        read_results(path)
