"""Whether all ranks come together, are where the plan puts them, and gather each other's bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from pangu_alpha.cluster.process_identity import identify
from pangu_alpha.cluster.world_check import RanksDifferError, compare_ranks, group_lines
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.data import DataConfig, SourceConfig
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import RunConfig, TrainConfig
from pangu_alpha.parallel.context import device_number

_WORDS = 1 << 16  # 64-bit words that each rank sends


def measure(place: Place) -> dict[str, Any]:
    """Returns the fault that all ranks find, if any, and the number of wrong words among those gathered."""
    world = place.world
    assert world is not None
    sent = np.random.default_rng(world.rank).integers(0, 2**63, _WORDS)
    gathered = world.gather(sent)
    wrong = sum(
        int((gathered[rank] != np.random.default_rng(rank).integers(0, 2**63, _WORDS)).sum())
        for rank in range(world.size)
    )
    own = identify(world.rank, _config(place), device_number(place.device))
    fault, lines = "", []
    try:
        compare_ranks(world, own)
        records = world.gather(own.record)
        lines = list(group_lines(records, own.table, own.config.parallel))
    except RanksDifferError as error:  # raised on all ranks alike
        fault = str(error)
    return {"wrong_words": wrong, "fault": fault, "groups": lines, "size": world.size}


def _config(place: Place) -> TrainConfig:
    """A run over all ranks; only its plan matters here."""
    model = ModelConfig(vocab_size=64, hidden_size=8, num_layers=2, num_heads=2, seq_length=16)
    run = RunConfig(output=str(place.folder), steps=1)
    data = DataConfig({"none": SourceConfig(records="none")})
    return TrainConfig(model, data, run, parallel=ParallelPlan(dp=place.setup.size))
