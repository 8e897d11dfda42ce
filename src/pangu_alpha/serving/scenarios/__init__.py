"""Dialogue engines to order by name: a task's form with fixed fields and examples, as a model."""

from pangu_alpha.serving.scenarios.forms import task_list
from pangu_alpha.serving.scenarios.scenario import Scenario, load_scenarios, shipped_scenarios

__all__ = ["Scenario", "load_scenarios", "shipped_scenarios", "task_list"]
