"""The closed forms and the fast simulation against the simulation event by event."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.planner.cost.schedule import _finish, duration, simulate, span


def end(events):
    return max(event.end for event in events)


def random_times(random, stages):
    return list(random.random(stages) + 0.5), list(2 * random.random(stages) + 0.3)


def test_closed_form_of_equal_stages():
    for stages in (1, 2, 5):
        for micro in (stages, stages + 3, 4 * stages):
            both = [1.0] * stages, [2.5] * stages
            for schedule in ("1f1b", "gpipe"):
                assert span(*both, micro, schedule) == pytest.approx(end(simulate(*both, micro, schedule)))


def test_closed_form_of_gpipe_with_any_stages():
    random = np.random.default_rng(1)
    for _ in range(30):
        times = random_times(random, int(random.integers(1, 7)))
        micro = int(random.integers(1, 9))
        exact = end(simulate(*times, micro, "gpipe"))
        assert duration(*times, micro, "gpipe") == pytest.approx(exact)


def test_bubble_of_the_interleaved_schedule():
    for stages, micro, chunks in ((4, 8, 2), (2, 4, 3), (8, 16, 3)):
        both = [1.0] * stages, [2.0] * stages
        exact = end(simulate(*both, micro, "1f1b", chunks))
        assert span(*both, micro, "1f1b", chunks) == pytest.approx(exact)
        assert exact == pytest.approx(3 * (micro + (stages - 1) / chunks))


def test_fast_simulation_is_exact():
    random = np.random.default_rng(2)
    for _ in range(60):
        times = random_times(random, int(random.integers(1, 8)))
        micro = int(random.integers(1, 20))
        assert _finish(*times, micro) == pytest.approx(end(simulate(*times, micro)))
        assert span(*times, micro) >= _finish(*times, micro) - 1e-9


def test_duration_of_many_micro_batches():
    random = np.random.default_rng(3)
    for _ in range(30):
        times = random_times(random, int(random.integers(2, 7)))
        assert duration(*times, 60) == pytest.approx(end(simulate(*times, 60)), rel=0.01)


def test_no_pass_starts_before_its_input():
    events = simulate([1.0, 2.0, 1.5], [2.0, 1.0, 3.0], 5)
    ends = {(e.stage, e.backward, e.micro): e.end for e in events}
    assert len(events) == 2 * 3 * 5
    for e in events:
        source = (e.stage + 1, True, e.micro) if e.backward else (e.stage - 1, False, e.micro)
        assert e.start >= ends.get(source, 0.0)


def test_interleaving_needs_whole_rounds():
    with pytest.raises(ValueError, match="no multiple of 4 stages"):
        simulate([1.0] * 4, [2.0] * 4, 6, chunks=2)
