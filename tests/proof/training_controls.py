"""Breaks a training run on purpose, each in one place: what train-replay must not pass.

Functions without arguments, called by one rank's process before it trains, or by the one that compiles.
"""

from __future__ import annotations

from dataclasses import replace


def rows_of_another_rank() -> None:
    """A rank reads the rows of the next data-parallel rank."""
    from pangu_alpha.data.batches import TrainingBatches

    made = TrainingBatches.__init__

    def with_fault(self, *arguments, rank=0, world_size=1):
        made(self, *arguments, rank=(rank + 1) % world_size, world_size=world_size)

    TrainingBatches.__init__ = with_fault


def learning_rate_of_another_step() -> None:
    """The update takes the recipe of the step after it."""
    from pangu_alpha.training.partitioned import engine as partitioned_engine

    controls = partitioned_engine.step_controls
    partitioned_engine.step_controls = lambda step, *others: controls(step + 1, *others)


def tokens_not_summed() -> None:
    """A device counts the tokens of its own rows only."""
    from pangu_alpha.parallel.reductions import Partitioned

    Partitioned.batch_sums = lambda self, gradients, tokens: (gradients, self.mul(tokens, self.row_share))


def values_of_another_seed() -> None:
    """A rank draws its initial values from another seed."""
    from pangu_alpha.training.engine import Engine

    draw = Engine.initialize

    def with_fault(self):
        right = self.config
        self.config = replace(right, run=replace(right.run, seed=right.run.seed + 1))
        draw(self)
        self.config = right

    Engine.initialize = with_fault


def overflow_not_read() -> None:
    """The step is compiled without the reading of the float status."""
    from pangu_alpha.training.partitioned import engine as partitioned_engine

    made = partitioned_engine.operators_for
    partitioned_engine.operators_for = lambda *names, **options: replace(
        made(*names, **options), float_status=None
    )


def rows_of_another_rank_later() -> None:
    """A rank reads the rows of the next data-parallel rank from the second step on, of two micro-batches."""
    from copy import copy
    from itertools import islice

    from pangu_alpha.data.batches import TrainingBatches

    made = TrainingBatches.batches

    def with_fault(self, position=0):
        yield from islice(made(self, position), 2)
        other = copy(self)
        other._rank = 1 - self._rank
        yield from made(other, position + 2 * self.samples_per_batch)

    TrainingBatches.batches = with_fault
