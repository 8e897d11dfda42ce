"""Prepares the graphs of a replay: reads, checks, merges and inlines them; runs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks.dependences import partial_order
from pangu_alpha.proof.checks.stages import together
from pangu_alpha.proof.dry_run.job import RankReport
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.alike import first_difference
from pangu_alpha.proof.graph.fusion import fuse
from pangu_alpha.proof.graph.inline import inline
from pangu_alpha.proof.replay.processes import ReplayError


def step_graph(report: RankReport, plan: ParallelPlan) -> mindir.Model:
    """A compiled rank's graph, with its collectives merged if the plan asks for that."""
    model = mindir.read(report.graph)
    return fuse(model, report.rank) if plan.gradient_fusion else model


def graphs_of(name: str, compiled: Sequence[RankReport], plan: ParallelPlan) -> dict[int, mindir.Model]:
    """Every rank's graph as one function.

    Args:
        name: Name of the plan in messages.
        compiled: Dry-run reports, one for each rank.
        plan: The plan that was compiled.

    Raises:
        ReplayError: If ranks of one stage have different graphs, or the stages would not meet in every order
            that their graphs allow.
    """
    mesh = Mesh.of(plan)
    models = {each.rank: step_graph(each, plan) for each in compiled}
    for rank, model in models.items():
        first = mesh.stage_ranks(mesh.stage_of(rank))[0]
        if difference := first_difference(models[first], model):
            raise ReplayError(f"{name}: ranks {first} and {rank} of one stage differ: {difference}")
    firsts = [mesh.rank(stage=stage) for stage in range(mesh.pp)]
    found = together({rank: partial_order(models[rank]) for rank in firsts}, mesh)
    if not found.meet:
        raise ReplayError(f"{name}: {found.text()}")
    return {rank: inline(model) for rank, model in models.items()}
