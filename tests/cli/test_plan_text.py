"""What plan.py says of a rank."""

from __future__ import annotations

import pytest

from pangu_alpha.cli.plan.text import host_text, stages_text, traffic_text
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks.dependences import PartialOrder
from pangu_alpha.proof.checks.traffic import BY_TABLE
from pangu_alpha.proof.checks.traffic_check import Line
from pangu_alpha.proof.dry_run.report import Placement, RankSummary
from pangu_alpha.proof.graph.liveness import KeptBytes

_SPLIT = Placement("word_embedding.table", 1, (4, 2), (None, None), (4, 2), (4, 2), "held (4, 2)")
_SLICES = "1.5 x what it holds + 1.5 GB = 3.00 GB"
_NODES = "1.5 x what it holds + 2.50 GB for its 10000 nodes = 4.00 GB, which is the limit of so large a graph"


def summary(peak: float, nodes: int = 5000, **others) -> RankSummary:
    """A rank that holds 10^9 bytes, whose process took `peak` bytes of the host."""
    values = {
        "rank": 0, "stage": 0, "compile_seconds": 1.0, "seconds": None, "initialize_seconds": 4.6,
        "peak_mb": int(peak) >> 20, "nodes": nodes, "bytes": {"weights": 10**9, "moments": 0, "sums": 0},
        "placements": (), "strategies": (), "lines": (), "links": (), "order": PartialOrder((), ()),
        "kept": KeptBytes({}, {}, {}),
    }  # fmt: skip
    return RankSummary(**values | others)


@pytest.mark.parametrize(
    ("rank", "fits", "said"),
    [
        (summary(2.9e9), True, f"; within {_SLICES}, the limit"),
        (summary(3.1e9), False, f"; ABOVE {_SLICES}, the limit"),
        (summary(2.9e9, nodes=10000), True, f"; within {_SLICES}; within {_NODES}"),
        (summary(3.1e9, nodes=10000), True, f"; ABOVE {_SLICES}; within {_NODES}"),
        (summary(4.1e9, nodes=10000), False, f"; ABOVE {_SLICES}; ABOVE {_NODES}"),
    ],
)
def test_a_large_graph_is_told_by_both_limits_of_the_host(rank, fits, said):
    assert rank.fits_host is fits and rank.agrees is fits
    assert host_text(rank).startswith("host peak ") and host_text(rank).endswith(said)
    assert " with initial values, made in 4.6 s; " in host_text(rank)
    values = rank.to_json()
    assert (values["slices_limit"], values["fits_host"]) == (3e9, fits)


def test_a_stage_that_is_not_as_predicted_is_told_why():
    wrong = summary(2e9, rank=2, stage=2, placements=(_SPLIT,))
    stages = [summary(2e9), summary(3.1e9, rank=1, stage=1), wrong]
    text = stages_text(stages, Mesh.of(ParallelPlan(pp=3, micro_batches=3)), (1, 1, 1))
    assert [line.split()[-1] for line in text.splitlines()[2:5]] == ["yes", "NO", "NO"]
    assert f"\n  stage 1: {host_text(stages[1])}\n" in text
    assert text.endswith("\n  stage 2: word_embedding.table: held (4, 2)")


@pytest.mark.parametrize(
    ("axis", "dp", "column"),
    [("tp", 2, "tp"), ("tp part", 2, "tp"), ("pp hop", 2, "pp"), ("other", 2, "dp"), ("dp+tp", 2, "dp"),
     ("world", 2, "dp"), ("world", 1, "pp")],
)  # fmt: skip
def test_bytes_of_every_kind_of_group_are_shown_under_an_axis(axis, dp, column):
    line = Line("w", "forward", "AllReduce", axis, "float32", 1, 8, 1, 8, 3e9, ((0, 1),))
    text = stages_text([summary(1e9, lines=(line,), links=("server",))], Mesh(dp=dp, tp=4, pp=2), (2, 2))
    header, _, row = text.splitlines()
    end = header.index(f"sent {column}") + len(f"sent {column}")
    assert row[:end].endswith("3.00 GB") and row.count("3.00 GB") == 1


def test_calls_of_a_found_table_are_shown_without_a_formula():
    line = Line(BY_TABLE, "forward", "AllGather", "tp part", "float16", 2, 8, 2, 8, 4.0, ((0, 1),))
    row = traffic_text(summary(1e9, lines=(line,), links=("server",))).splitlines()[2]
    assert " tp part (2) " in row and "  -" in row and " a block " in row and " yes " not in row
