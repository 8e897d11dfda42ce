"""Two models: items are matched by name, p values are those of the statistics, misfits are refused."""

from __future__ import annotations

import dataclasses

import pytest

from pangu_alpha.evaluation.results.compare import compare_results, format_comparison
from pangu_alpha.evaluation.statistics import mcnemar

GOLD = [1] * 62 + [0] * 20
FIRST = [1] * 40 + [0] * 22 + [0] * 20
SECOND = [0] * 40 + [1] * 22 + [0] * 20


def test_items_are_matched_whatever_their_order(made, tmp_path):
    first, (result, samples) = made.choice(FIRST, gold=GOLD), made.choice(SECOND, gold=GOLD)
    turned = [dataclasses.replace(each, number=81 - each.number) for each in samples]
    made.write(tmp_path / "a", first, made.choice([0] * 8, task="cmnli"))
    made.write(tmp_path / "b", (result, turned), made.choice([0] * 8, task="cmnli"))
    found = compare_results(tmp_path / "a", tmp_path / "b")
    one, other = found
    assert (one.name, one.key, one.n) == ("ocnli_paper_0shot_seed0", "acc,none", 82)
    assert (one.first, one.second) == (60 / 82, 42 / 82)
    assert one.difference.discordant == (40, 22) and one.difference.p == pytest.approx(mcnemar(40, 22))
    assert one.adjusted == pytest.approx(2 * one.difference.p)  # of two results, the smaller p
    assert other.difference.p == other.adjusted == 1
    page = format_comparison(found, "A", "B")
    assert "| ocnli_paper_0shot_seed0 | 82 | acc,none | 73.17 | 51.22 | -21.95 |" in page
    assert "| 40 | 22 | 0.03 | 0.06 | mcnemar |" in page


def test_figures_that_are_no_means_are_compared_by_their_sums(made, answers, tmp_path):
    given, references = answers
    made.write(tmp_path / "a", made.answer(given, references))
    made.write(tmp_path / "b", made.answer([text[:2] for text in given], references))
    (found,) = compare_results(tmp_path / "a", tmp_path / "b")
    assert found.key == "rouge_l,official" and found.difference.test == "randomization"
    assert found.second < found.first and found.difference.p < 0.001
    assert found.difference.interval.low < found.difference.value < found.difference.interval.high < 0


def test_what_does_not_match_is_refused(made, tmp_path):
    made.write(tmp_path / "a", made.choice([0] * 8), made.choice([0] * 8, task="cmnli"))
    short = made.choice([0] * 5, gold=[0] * 5)
    result, samples = made.choice([0] * 8, task="cmnli")
    samples[3] = dataclasses.replace(samples[3], target=7)
    made.write(tmp_path / "b", short, (result, samples))
    with pytest.raises(ValueError) as told:
        compare_results(tmp_path / "a", tmp_path / "b")
    said = str(told.value)
    assert (
        "ocnli_paper_0shot_seed0: 8 items and 5; evaluate both with the same files and the same --limit"
        in said
    )
    assert "cmnli_paper_0shot_seed0: item 'item 3' has another text or another right answer" in said
    samples[3] = dataclasses.replace(samples[3], id="other")
    made.write(tmp_path / "c", (result, samples))
    with pytest.raises(ValueError, match="item 'other' is in the second only"):
        compare_results(tmp_path / "a", tmp_path / "c")
    made.write(tmp_path / "d", made.choice([0] * 8, shots=3))
    with pytest.raises(
        ValueError, match="no result in common: ocnli_paper_0shot_seed0, cmnli.* there, ocnli_paper_3"
    ):
        compare_results(tmp_path / "a", tmp_path / "d")
