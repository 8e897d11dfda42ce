"""Hooks run when they are due, in their order, and find their own state again."""

from __future__ import annotations

from unittest import mock

import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.training.hooks.hook import Hook, restore, states
from pangu_alpha.training.hooks.standard import standard_hooks


class Counter(Hook):
    name = "counter"
    every = 3

    def __init__(self):
        self.count = 0

    def state(self):
        return {"count": self.count}

    def restore(self, state):
        if not isinstance(state, dict) or "count" not in state:
            raise ValueError(f"no counter: {state!r}")
        self.count = state["count"]


class Silent(Hook):
    name = "silent"


@pytest.mark.parametrize(
    ("every", "at_end", "steps"),
    [(3, False, [3, 6, 9]), (3, True, [3, 6, 9, 10]), (1, False, [*range(1, 11)]), (0, True, [])],
)
def test_when_a_hook_is_due(every, at_end, steps):
    hook = Hook()
    hook.every, hook.at_end = every, at_end
    assert [step for step in range(1, 11) if hook.is_due(step, last=step == 10)] == steps


def test_only_hooks_with_a_state_are_kept_and_each_finds_its_own():
    first, second = Counter(), Counter()
    first.count, second.name = 5, "another"
    assert states([Silent(), first, second]) == {"counter": {"count": 5}, "another": {"count": 0}}
    assert states([Silent()]) == {}
    again = Counter()
    restore([Silent(), again], {"counter": {"count": 5}, "of a hook that is gone": 1})
    assert again.count == 5
    restore([again], {})
    assert again.count == 5


def test_a_kept_state_does_not_change_while_it_is_written():
    class Live(Counter):
        def state(self):
            return self.counts

    hook = Live()
    hook.counts = {"seen": [1]}
    kept = states([hook])
    hook.counts["seen"].append(2)  # the next step, while a checkpoint is written beside it
    assert kept == {"counter": {"seen": [1]}}


def test_two_hooks_of_a_run_have_two_names():
    run = mock.MagicMock()
    run.streams.validation = None
    run.objective.frozen = frozenset()
    run.objective.hooks.return_value = [Silent()]
    run.config.parallel = ParallelPlan()
    run.config.model, run.world.rank, run.world.size = load_model_config("tiny"), 0, 1
    assert [hook.name for hook in standard_hooks(run)] == ["report", "replicas", "silent", "save"]
    run.objective.hooks.return_value = [Silent(), Silent()]
    with pytest.raises(AssertionError, match="under a name of its own: .*'silent', 'silent'"):
        standard_hooks(run)


def test_a_state_of_another_form_is_refused_by_the_name_of_its_hook():
    with pytest.raises(ValueError, match="^counter: no counter: 7$"):
        restore([Counter()], {"counter": 7})
