from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.checkpoint.native.folders import (
    newest_first,
    part_name,
    rank_of,
    replaced_name,
    step_name,
    step_of,
)
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source


@pytest.mark.parametrize("number", [0, 7, 99_999, 100_000, 99_999_999, 10**8, 10**9, 2**40])
def test_what_is_written_is_matched(number):
    assert step_of(step_name(number)) == number and rank_of(part_name(number)) == number
    assert replaced_name(f"{step_name(number)}.aside-3") == step_name(number)


def test_names_have_not_changed():
    assert (step_name(1000), part_name(3)) == ("step_00001000", "rank_00003")


@pytest.mark.parametrize(
    "digits", ["1", "000000001", "0100000000", "１２３４５６７８", "-0000001", "9" * 19, "00000001x", ""]
)
def test_no_other_name_is(digits):
    """Such as one with zeros too many, whose step would be looked for under another name."""
    assert step_of(f"step_{digits}") is None and replaced_name(f"step_{digits}.aside-1") is None
    assert rank_of(f"rank_{digits}") is None


def test_steps_are_ordered_by_their_numbers():
    names = ["step_99999999", "mine", "step_1000000000", "step_00000007"]
    assert newest_first(names) == ["step_1000000000", "step_99999999", "step_00000007", "mine"]


def write(path, step, fill, config=None, **values):
    manifest = Manifest(step, 0, config or {}, **values)
    write_checkpoint(path, {"model": {"w": np.full(3, fill, np.float32)}}, manifest)


def test_the_newest_of_a_run_has_the_highest_number(tmp_path):
    for step in (99_999_999, 10**9):
        write(tmp_path / "run" / "checkpoints" / step_name(step), step, step)
    assert open_source(tmp_path / "run").manifest.step == 10**9
    assert CheckpointStore(tmp_path / "run" / "checkpoints").newest().name == "step_1000000000"


def test_a_part_of_rank_100000_is_one(tmp_path):
    config = {"parallel": {"dp": 100_001}}
    place = {"model": {"w": {"start": [0], "shape": [3]}}}
    for rank in (99_999, 100_000):
        folder = tmp_path / "step_00000001" / part_name(rank)
        write(folder, 1, 0.0, config, kind="part", slices=place)
    with pytest.raises(CheckpointError, match="99999 of the plan's 100001 parts are missing: rank_00000"):
        open_source(tmp_path / "step_00000001")
