"""Ranks that refuse a run together leave it together."""

from __future__ import annotations

import pytest

from pangu_alpha.cli import train
from pangu_alpha.cluster import world_check
from pangu_alpha.parallel import context


class Group:
    """Counts the barriers that a rank calls."""

    barriers = 0

    def barrier(self):
        self.barriers += 1


@pytest.mark.parametrize(("error", "barriers"), [(world_check.RanksDifferError, 1), (ValueError, 0)])
def test_what_all_ranks_refuse_ends_behind_a_barrier(monkeypatch, error, barriers):
    """Rank 1 ended by SIGSEGV while it left after rank 0. What one rank refuses alone cannot wait."""

    def refuse(*_):
        raise error("not the same on all ranks")

    monkeypatch.setattr(world_check, "check_world", refuse)
    monkeypatch.setattr(context, "device_number", lambda device: 0)
    world = Group()
    with pytest.raises(error, match="not the same"):
        train._together(None, "CPU", world, False)
    assert world.barriers == barriers
