"""The loss on held-out batches, without dropout."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from mindspore import Tensor

from pangu_alpha.data.batches import Batch
from pangu_alpha.parallel.world import World
from pangu_alpha.training.loss import TokenLoss

_FIELDS = ("input_ids", "labels", "position_ids", "document_ids")  # inputs of a TokenLoss


def mean_loss(loss: TokenLoss, batches: Iterable[Batch], world: World | None = None) -> tuple[float, int]:
    """Mean -log p in nats over the tokens that count, and their number.

    Args:
        batches: Batches of this rank, all of one shape.
        world: The ranks that read the other rows; every rank gets the result over all. None: this one only.
    """
    total, tokens = 0.0, 0
    for batch in batches:
        nll = loss(*(Tensor(batch[name]) for name in _FIELDS)).asnumpy()
        total += float((nll * batch["loss_mask"]).sum(dtype=np.float64))
        tokens += int(batch["loss_mask"].sum())
    if world is not None:
        total, tokens = world.gather(np.array([total, tokens], np.float64)).sum(0).tolist()
    return total / max(tokens, 1), int(tokens)
