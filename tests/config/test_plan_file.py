"""A plan is found in a YAML of its own and in that of a run; a run without one is refused by name."""

import pytest

from pangu_alpha.config.plan_file import plan_section


@pytest.mark.parametrize(
    "values", [{"dp": 2}, {"parallel": {"dp": 2}}, {"model": "tiny", "run": {}, "parallel": {"dp": 2}}]
)
def test_the_fields_of_a_plan_are_found(values):
    assert plan_section(values, "a.yaml") == {"dp": 2}


def test_an_empty_section_is_left_to_the_caller():
    assert plan_section({"run": {}, "parallel": None}, "a.yaml") is None


def test_the_yaml_of_a_run_on_one_device_is_refused():
    with pytest.raises(ValueError, match=r"a.yaml: .* \(it has model, run\) without a section parallel"):
        plan_section({"model": "tiny", "run": {"steps": 1}}, "a.yaml")
