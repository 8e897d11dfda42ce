from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.proof.replay.compare import Bounds, Difference, Recipe, Run, compare, difference_lines

WHOLE = (slice(0, 2), slice(0, 2))
RECIPE = Recipe(1, (1e-2,), 0.9)


def states(rows=2):
    """One step of one parameter w, which moved by up to 1."""
    w = np.array([[1.0, 0.5], [0.25, 0.0]])
    found = {"0/loss": np.float32(2.0), "0/norm": np.float32(0.5), "0/applied": np.bool_(True)}
    for name, factor in {"w": 1.0, "adam_m.w": 0.1, "adam_v.w": 0.01}.items():
        found[f"0/state/{name}"] = (w * factor).astype(np.float32)
    return found


def compared(*ranks, shape=(2, 2), regions=None):
    names = ("w", "adam_m.w", "adam_v.w")
    regions = regions or dict.fromkeys(names, WHOLE)
    run = Run(
        dict(enumerate(ranks)), dict.fromkeys(range(len(ranks)), regions), dict.fromkeys(names, shape), (0,)
    )
    return compare(run, states(), {"w": np.zeros((2, 2), np.float32)}, RECIPE, Bounds())


def test_equal_runs_differ_nowhere():
    found = compared(states(), states())
    assert {each.value for each in found.largest.values()} == {0.0}
    assert found.first == ""
    assert set(found.largest) == {
        "loss",
        "norm",
        "skip",
        "gradient",
        "weight",
        "moment",
        "replica",
        "padding",
    }


@pytest.mark.parametrize(
    ("key", "kind", "change", "value"),
    [
        ("0/loss", "loss", 1e-3, 5e-4),
        ("0/norm", "norm", 1e-3, 2e-3),
        ("0/state/w", "weight", 1e-3, 1e-3),
        ("0/state/adam_m.w", "gradient", 1e-4, 1e-3),
        ("0/state/adam_v.w", "moment", 1e-5, 1e-3),
    ],
)
def test_a_difference_is_measured_by_its_kind(key, kind, change, value):
    broken = states()
    broken[key] = broken[key] + np.float32(change)
    found = compared(broken)
    assert found.largest[kind].value == pytest.approx(value, rel=1e-3)
    assert not found.largest[kind].passed
    assert found.largest[kind].ratio >= 10


def test_the_place_of_a_difference_is_named():
    broken = states()
    broken["0/state/w"][1, 0] += 0.1
    found = compared(broken)
    assert found.largest["weight"].where == "step 1, w[1, 0], rank 0"
    assert found.first == "step 1, w[1, 0], rank 0 (weight: 0.1, bound 0.0001)"


def test_a_rank_that_differs_from_its_copy_is_named():
    broken = states()
    broken["0/state/w"] += np.float32(0.5)
    found = compared(states(), broken)
    assert found.largest["weight"].passed
    assert (found.largest["replica"].value, found.largest["replica"].where) == (0.5, "step 1, w, rank 1")


def test_a_step_that_only_one_skips_and_what_is_not_a_number_do_not_pass():
    skipped, broken = states(), states()
    skipped["0/applied"] = np.bool_(False)
    broken["0/state/w"][0, 0] = np.nan
    assert compared(skipped).largest["skip"].ratio == np.inf
    assert compared(broken).largest["weight"].ratio == np.inf


def test_the_gradient_is_that_of_the_first_step_that_the_reference_applies():
    """What a skipped step leaves in the moments is equal, and says nothing of its gradients."""

    def two(change):
        found = {key.replace("0/", f"{step}/", 1): each for step in (0, 1) for key, each in states().items()}
        before = {key.replace("0/", "-1/", 1): each * 0 for key, each in states().items() if "state" in key}
        for each in before:
            found[each.replace("-1/", "0/", 1)] = before[each]
        found["1/state/adam_m.w"] = found["1/state/adam_m.w"] + np.float32(change)
        return found | before | {"0/applied": np.bool_(False)}

    names = ("w", "adam_m.w", "adam_v.w")
    run = Run({0: two(1e-4)}, {0: dict.fromkeys(names, WHOLE)}, dict.fromkeys(names, (2, 2)), (0,))
    recipe = Recipe(2, (1e-2, 1e-2), 0.9)
    found = compare(run, two(0.0), {"w": np.zeros((2, 2), np.float32)}, recipe, Bounds())
    assert found.largest["gradient"].value == pytest.approx(1e-3, rel=1e-3)
    assert found.largest["gradient"].where.startswith("step 2, w[")


def test_rows_that_pad_the_vocabulary_must_stay_zero():
    padded = states()
    for name in ("w", "adam_m.w", "adam_v.w"):
        padded[f"0/state/{name}"] = np.concatenate([padded[f"0/state/{name}"], np.zeros((1, 2), np.float32)])
    regions = dict.fromkeys(("w", "adam_m.w", "adam_v.w"), (slice(0, 3), slice(0, 2)))
    found = compared(padded, shape=(3, 2), regions=regions)
    assert found.first == "" and found.largest["padding"].passed
    padded["0/state/w"][2, 0] = 1e-9
    assert not compared(padded, shape=(3, 2), regions=regions).largest["padding"].passed


def test_differences_are_lines_of_one_width():
    found = [
        Difference("loss", 0.0, 1e-5, "step 1"),
        Difference("later_gradient", 2e-5, 1e-5, "step 3, w[0]"),
    ]
    assert list(difference_lines(found)) == [
        "  kind             difference    bound  where it is largest",
        "  loss               0.00e+00    1e-05  -",
        "  later_gradient     2.00e-05    1e-05  step 3, w[0]  <-- above its bound",
    ]
