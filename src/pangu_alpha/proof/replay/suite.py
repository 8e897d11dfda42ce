"""The plans that are replayed, as data: small networks, split in every way.

Letters: L layers, including the query layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import LossScaleConfig, OptimConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.dry_run.job import Job

_MODEL = ModelConfig(64, 32, 2, 4, seq_length=8, dropout=0.0, compute_dtype="float32")
# There is no warm-up, so that the first update moves weights as well. Clipping is active: norms are above 1,
# clipped elements about 1e-3. AdamW divides by sqrt(v) + epsilon: an epsilon of 1e-8 would turn the rounding
# of gradients that are almost 0 into updates as large as any other, on any device.
_OPTIM = OptimConfig(
    learning_rate=1e-2,
    end_learning_rate=1e-3,
    warmup_steps=0,
    decay_steps=100,
    epsilon=1e-5,
    clip_norm=0.1,
)
# The bias correction divides sqrt(v) by about 0.2 before epsilon is added, so epsilon is that much larger.
WARM_UP = replace(_OPTIM, warmup_steps=4, bias_correction=True, epsilon=1e-4)
# Unclipped gradients are about 30 times as large. Only here does a wrong scale change the weights: with
# clipping active, the clipped gradient is the same whatever it was multiplied by.
UNCLIPPED = replace(_OPTIM, clip_norm=1e3, epsilon=1e-3)
_SCALE = LossScaleConfig(mode="dynamic", initial=2.0**16)
SCALED = replace(_OPTIM, loss_scale=_SCALE)
UNCLIPPED_SCALED = replace(UNCLIPPED, loss_scale=_SCALE)


@dataclass(frozen=True)
class Change:
    """Training that continues under another plan.

    Args:
        before: The job that is trained first.
        after: The job that continues it, with the same network and recipe.
        resharded: Whether the checkpoint is resharded for the new plan first; otherwise the ranks read that
            of the old plan.
    """

    before: Job
    after: Job
    resharded: bool = True


def job(plan: ParallelPlan, layers: int = 2, recipe: OptimConfig = _OPTIM, **model: Any) -> Job:
    """A small job for a plan.

    Args:
        layers: L.
        recipe: The optimizer's recipe; by default clipping is active at every step.
        model: Fields of ModelConfig that differ from the small network.
    """
    shape = replace(_MODEL, num_layers=max(layers, plan.pp), **model)
    return Job(shape, plan, recipe, batch_size=2, operators="plain", seed=1)


def suite() -> dict[str, Job]:
    """All plans by name."""
    sharded: dict[str, Any] = {"optimizer_parallel": "level1", "optimizer_threshold": 0}
    pipeline = ParallelPlan(dp=2, tp=2, pp=2, micro_batches=4)
    everything = replace(pipeline, **sharded, recompute="full", sequence_parallel=True)
    uneven = replace(
        pipeline, tp=1, micro_batches=3, schedule="gpipe", layers_per_stage=(1, 2), recompute="selective"
    )
    scattered = ParallelPlan(
        dp=2, tp=2, micro_batches=2, optimizer_parallel="level2", optimizer_threshold=0, gradient_fusion=1
    )
    gathered = replace(scattered, optimizer_parallel="level3", gradient_fusion=0)
    return (
        {
            "dp4": job(ParallelPlan(dp=4)),
            "tp4": job(ParallelPlan(tp=4)),
            "dp2 tp2": job(ParallelPlan(dp=2, tp=2)),
            "dp2 tp2 optimizer": job(ParallelPlan(dp=2, tp=2, **sharded)),
            "dp2 tp2 pp2, 4 micro-batches": job(pipeline, layers=4),
            "pp4, 4 micro-batches": job(ParallelPlan(pp=4, micro_batches=4), layers=4),
            "dp2 tp2 pp2 optimizer recompute sequence": job(everything, layers=4),
            "query then norm": job(ParallelPlan(dp=2, tp=2), norm_order="query_then_norm"),
            "odd vocabulary": job(ParallelPlan(dp=2, tp=2), vocab_size=63),
            "dp2, 2 micro-batches": job(ParallelPlan(dp=2, micro_batches=2)),
            "dp2 tp2 whole vocabulary": job(ParallelPlan(dp=2, tp=2, vocab_parallel=False)),
            "dp2 tp2, 2 micro-batches, gradients sharded": job(scattered),
            "dp2 pp2, uneven gpipe, selective recompute": job(uneven, layers=3),
            "dp2 tp2, 2 micro-batches, weights sharded": job(gathered),
            "dp2 tp2, warm-up from 0, bias correction": job(ParallelPlan(dp=2, tp=2), recipe=WARM_UP),
            "dp2 tp2, 2 micro-batches, clipping inactive": job(
                ParallelPlan(dp=2, tp=2, micro_batches=2), recipe=UNCLIPPED
            ),
        }
        | _stages_scale_and_merging()
        | by_type_and_operators()
        | with_dropout()
    )


def _stages_scale_and_merging() -> dict[str, Job]:
    """Plans with sharded optimizers over stages, a loss scale, or merged collectives."""
    stages = ParallelPlan(dp=2, pp=2, micro_batches=2)
    gradients = replace(stages, optimizer_parallel="level2", optimizer_threshold=0)
    merged = replace(stages, gradient_fusion=1)
    both = ParallelPlan(
        dp=2, tp=2, micro_batches=2, optimizer_parallel="level1", optimizer_threshold=0, gradient_fusion=1
    )
    scaled = ParallelPlan(tp=2, pp=2, micro_batches=2, sequence_parallel=True)
    return {
        "dp2 pp2, gradients sharded": job(gradients),
        "tp2 pp2, clipping inactive, loss scale 2^16": job(scaled, recipe=UNCLIPPED_SCALED),
        "dp2 pp2, merged sums": job(merged),
        "dp2 tp2 optimizer, merged": job(both),
    }


def by_type_and_operators() -> dict[str, Job]:
    """Plans in float16, with a loss scale as training uses it, and with Ascend's own operators."""
    sharded: dict[str, Any] = {"optimizer_parallel": "level1", "optimizer_threshold": 0}
    tensor, grid = ParallelPlan(tp=2), ParallelPlan(dp=2, tp=2)
    scaled = ParallelPlan(dp=2, micro_batches=2, **sharded)
    return {
        "tp2 float16": job(tensor, compute_dtype="float16"),
        "dp2, 2 micro-batches, level1, float16, scale 2^16": job(
            scaled, recipe=SCALED, compute_dtype="float16"
        ),
        "tp2 Ascend operators": replace(job(tensor), operators="Ascend"),
        "dp2 tp2 flash attention float16": replace(job(grid, compute_dtype="float16"), operators="Ascend"),
    }


def quick() -> dict[str, Job]:
    """Plans that are replayed in a few minutes."""
    sharded: dict[str, Any] = {"optimizer_parallel": "level1", "optimizer_threshold": 0}
    return {
        "dp2": job(ParallelPlan(dp=2)),
        "tp2, odd vocabulary": job(ParallelPlan(tp=2), vocab_size=63),
        "pp2, 2 micro-batches": job(ParallelPlan(pp=2, micro_batches=2)),
        "dp2 tp2 optimizer": job(ParallelPlan(dp=2, tp=2, **sharded)),
        **quick_with_dropout(),
    }


def with_dropout() -> dict[str, Job]:
    """Plans whose masks must equal those of one device, wherever rows and heads lie; part of `suite`."""
    grid = ParallelPlan(dp=2, tp=2, micro_batches=2)
    everything = replace(
        grid,
        pp=2,
        optimizer_parallel="level1",
        optimizer_threshold=0,
        recompute="full",
        sequence_parallel=True,
    )
    return {
        **quick_with_dropout(),
        "dp2 tp2, 2 micro-batches, dropout": job(grid, dropout=0.1),
        "dp2 tp2 pp2 level1 recompute sequence, dropout": job(everything, dropout=0.1),
    }


def quick_with_dropout() -> dict[str, Job]:
    """Those of `with_dropout` that are replayed in seconds; part of `quick`."""
    return {"tp2 sequence parallel, dropout": job(ParallelPlan(tp=2, sequence_parallel=True), dropout=0.1)}


def continued() -> dict[str, Change]:
    """Changes of the plan during training; the name says where the rows of a step change."""
    grid = ParallelPlan(dp=2, tp=2)
    sharded = replace(grid, optimizer_parallel="level1", optimizer_threshold=0)
    pipeline = ParallelPlan(pp=2, micro_batches=3)
    odd: dict[str, Any] = {"vocab_size": 61}
    return {
        "tp2 to tp4": Change(job(ParallelPlan(tp=2)), job(ParallelPlan(tp=4))),
        "dp2 to pp2, 4 to 6 rows": Change(job(ParallelPlan(dp=2)), job(pipeline)),
        "optimizer sharded to whole, read on the fly": Change(job(sharded), job(grid), resharded=False),
        "vocabulary of 61 padded to 62 to unpadded, 2 to 4 rows": Change(
            job(ParallelPlan(tp=2), **odd), job(ParallelPlan(dp=2), **odd)
        ),
    }
