"""Where a rank's slices begin, beside where MindSpore put them; moments lie as their parameters."""

from __future__ import annotations

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.replay.slices import region

MODEL = ModelConfig(63, 32, 2, 4, seq_length=16, dropout=0.0)
PLAN = ParallelPlan(dp=2, tp=2, optimizer_parallel="level1", optimizer_threshold=1)
RANK = 2  # second along dp, first along tp: the two axes are not to be mixed up


def test_slices_begin_where_mindspore_put_them(tmp_path):
    placed = layouts(MODEL, PLAN)
    report = compile_rank(Job(MODEL, PLAN), RANK, tmp_path)
    graph = mindir.read(report.graph)
    parameters, groups = graph.parameters, graph.groups
    for name, layout in placed.items():
        begin = layout.start(PLAN, RANK)
        for stored in (name, f"adam_m.{name}", f"adam_v.{name}"):
            found, held = report.layouts[stored], parameters[stored].shape
            cut = region(found, RANK, held, groups.get(found.optimizer_group, ()))
            assert tuple(part.start for part in cut) == begin, stored
            assert held == layout.slice_shape, stored
    assert {layout.optimizer_parts for layout in placed.values()} == {1, 2, 4}
    assert placed["word_embedding.table"].shape == (64, 32)  # a row of padding
