"""Gold in, 100 out: every task through the whole path, from its files to the figures of the results."""

from __future__ import annotations

import pytest
from oracles import Knowing, plans_of

from pangu_alpha.evaluation.running.execute import computed_path, run_plans
from pangu_alpha.evaluation.running.finish import result_of
from pangu_alpha.evaluation.running.samples import SampleFile
from pangu_alpha.evaluation.tasks.catalog import load_tasks

TASKS = load_tasks()


def results(network, plans, out):
    """The results of plans by their names."""
    run_plans(network, plans, out)
    return {plan.name: result_of(plan, [*SampleFile(computed_path(out, plan)).read()])[0] for plan in plans}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("shots", [0, 3])
def test_the_right_answers_score_100(name, shots, eval_data, tmp_path):
    for template in TASKS[name].templates:
        plans = plans_of(eval_data, [name], (shots,), (1,), template)
        for result in results(Knowing(plans), plans, tmp_path).values():
            for figure in result.measured:
                assert figure.value == pytest.approx(1.0), (template, figure)
            assert result.n >= 4 and "prompts_with_fewer_examples" not in result.counts


@pytest.mark.parametrize("name", [name for name in TASKS if TASKS[name].family != "perplexity"])
def test_the_worst_answers_score_0(name, eval_data, tmp_path):
    plans = plans_of(eval_data, [name])
    for result in results(Knowing(plans, worst=True), plans, tmp_path).values():
        assert all(figure.value == 0 for figure in result.measured), result.measured
