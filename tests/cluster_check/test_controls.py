"""Every check has a control: a test in which it passes, and does not with a planted fault of its kind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from records_of import BY_NAME

# By check, the test with the fault: planted in what ranks compute where that takes less than minutes, else in
# what they record.
CONTROLS = {
    "environment": "test_planted_faults.py::test_a_full_disk",
    "world": "test_planted_faults.py::test_a_wrong_rank_table",
    "operators": "test_planted_faults.py::test_a_perturbed_operator",
    "dropout": "test_planted_faults.py::test_dropout_off",
    "network": "test_planted_faults.py::test_a_swapped_slice",
    "decoding": "test_planted_faults.py::test_a_decoder_that_does_not_end_documents",
    "released": "test_planted_faults.py::test_a_released_network_with_two_weights_swapped",
    "training": "test_planted_faults.py::test_a_device_that_trains_otherwise",
    "parallel": "test_judges.py::test_ranks_that_train_another_thing_together",
    "partitioned": "test_planted_faults.py::test_a_slice_of_another_rank",
    "overflow": "test_planted_faults.py::test_an_overflow_of_which_other_ranks_do_not_hear",
    "reshard": "test_planted_faults.py::test_a_resharded_checkpoint_with_two_tensors_swapped",
    "speed": "test_planted_faults.py::test_a_slow_device",
    "links": "test_planted_faults.py::test_a_slow_link_in_a_real_group",
    "overlap": "test_planted_faults.py::test_products_and_sums_that_hold_each_other_up",
    "startup": "test_judges.py::test_a_slow_start",
    "planner": "test_judges.py::test_a_planner_without_a_plan",
    "plans": "test_timed_plans.py::test_steps_as_predicted_pass_and_others_do_not",
}


def names_in(file):
    tree = ast.parse((Path(__file__).parent / file).read_text("utf-8"))
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_check_has_a_control(name):
    file, _, test = CONTROLS[name].partition("::")
    assert test in names_in(file)


def test_no_control_is_of_a_check_that_is_gone():
    assert CONTROLS.keys() == BY_NAME.keys()
