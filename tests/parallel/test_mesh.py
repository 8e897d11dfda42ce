"""The grid is a bijection, in MindSpore's order, and knows its groups by name."""

from __future__ import annotations

import random

import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.mesh import AXES, Coordinates, Mesh

GRID = Mesh(dp=2, tp=4, pp=4)
SHAPES = [tuple(random.Random(seed).randint(1, 6) for _ in range(3)) for seed in range(20)]


@pytest.mark.parametrize(
    ("place", "rank"), [((0, 0, 0), 0), ((0, 0, 3), 3), ((0, 1, 0), 4), ((1, 0, 0), 8), ((3, 1, 3), 31)]
)
def test_published_grid(place, rank):
    stage, data, tensor = place
    assert rank == 8 * stage + 4 * data + tensor
    assert GRID.rank(data, stage, tensor) == rank
    assert GRID.coordinates(rank) == Coordinates(data, stage, tensor)


@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_and_groups(shape):
    mesh = Mesh(*shape)
    assert [mesh.rank(*mesh.coordinates(rank)) for rank in range(mesh.size)] == list(range(mesh.size))
    for axis in AXES:
        groups = mesh.groups(axis)
        assert sorted(rank for group in groups for rank in group) == list(range(mesh.size))
        for group in groups:
            assert len(group) == mesh.degree(axis)
            assert [mesh.coordinates(rank).along(axis) for rank in group] == list(range(mesh.degree(axis)))
            assert all(mesh.group(axis, rank) == group for rank in group)
            others = {tuple(mesh.coordinates(r).along(a) for a in AXES if a != axis) for r in group}
            assert len(others) == 1
            assert mesh.axis_of(group) == (axis if len(group) > 1 else "self")


@pytest.mark.parametrize("shape", SHAPES[:5])
def test_stages_are_consecutive(shape):
    mesh = Mesh(*shape)
    ranks = [rank for stage in range(mesh.pp) for rank in mesh.stage_ranks(stage)]
    assert ranks == list(range(mesh.size))
    assert all(mesh.stage_of(rank) == rank // (mesh.size // mesh.pp) for rank in ranks)


def test_grid_of_a_plan():
    mesh = Mesh.of(ParallelPlan(dp=16, tp=8, pp=16, micro_batches=32))
    assert (mesh, mesh.size) == (Mesh(dp=16, tp=8, pp=16), 2048)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ((5,), "self"),
        (range(4), "tp"),
        ((3, 1, 0, 2), "tp"),
        ((0, 4), "dp"),
        ((0, 8, 16, 24), "pp"),
        (range(8, 16), "dp+tp"),
        ([r for r in range(32) if r % 8 < 4], "pp+tp"),
        ([r for r in range(32) if r % 4 == 1], "pp+dp"),
        (range(32), "world"),
        ((1, 25), "pp pair"),
        ((9, 17), "pp hop"),
        ((0, 16), "pp part"),
        ((0, 1), "tp part"),
        ((0, 5), "other"),
        (range(1, 9), "other"),
    ],
)
def test_names_of_groups(group, name):
    assert GRID.axis_of(tuple(group)) == name


def test_an_axis_that_is_the_world_keeps_its_name():
    assert Mesh(dp=4).axis_of(range(4)) == "dp"
    assert Mesh(tp=4).axis_of(range(4)) == "tp"
    assert Mesh(dp=2, pp=2).axis_of((0, 2)) == "pp"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Mesh(dp=0), "dp: 0"),
        (lambda: GRID.rank(data=2), "along dp lies outside 0..1"),
        (lambda: GRID.coordinates(32), "rank 32 lies outside 0..31"),
        (lambda: GRID.groups("ep"), "'ep' is not one of pp, dp, tp"),
        (lambda: GRID.axis_of((1, 1)), "none twice"),
        (lambda: GRID.axis_of(()), "at least one rank"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("group", "rank", "moved"),
    [
        ((0, 4), 3, (3, 7)),  # along dp: tensor coordinate of the rank
        ((0, 4), 9, (9, 13)),  # and its stage
        ((0, 1, 2, 3), 14, (12, 13, 14, 15)),
        ((8, 0), 5, (13, 5)),  # in the order given
        (range(32), 17, tuple(range(32))),
        ((3,), 30, (30,)),
        ((0, 24), 6, (6, 30)),
    ],
)
def test_a_group_is_moved_to_another_rank_by_the_coordinates_its_members_share(group, rank, moved):
    assert GRID.counterpart(tuple(group), rank) == moved


def test_every_rank_is_of_the_group_that_is_moved_to_it():
    for axis in ("pp", "dp", "tp"):
        for rank in range(GRID.size):
            assert GRID.counterpart(GRID.group(axis, 0), rank) == GRID.group(axis, rank)
