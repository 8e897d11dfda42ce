"""The small training run on all ranks, each with its own rows, and on one with all rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from pangu_alpha.cluster_check.measure.operators import types_of
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.training_run import config_of, curve, loaded, per_rank, prepare
from pangu_alpha.parallel.world import World
from pangu_alpha.training.loop import train


def measure(place: Place) -> dict[str, Any]:
    """Returns the losses of the run's steps; of several ranks, those that the first one reported."""
    data, output = place.folder.parent / "data", place.folder / "run"
    dtype = "float32" if "float32" in types_of(place.device) else "float16"
    ranks = place.setup.size
    if place.world is None:
        prepare(data)
        path = config_of(data, output, place.device, dtype)
        code = train(loaded(path, f"run.batch_size={per_rank(ranks) * ranks}"), place.device)
        return _values(code, dtype, curve(output))
    assert isinstance(place.world, World)
    if place.rank == 0:
        config_of(data, output, place.device, dtype, ranks)
    place.world.gather(np.zeros(1, np.float32))  # the file is there
    code = train(loaded(output.with_suffix(".yaml")), place.device, place.world)
    return _values(code, dtype, curve(output) if place.rank == 0 else {})


def _values(code: int, dtype: str, found: dict[str, Any]) -> dict[str, Any]:
    if code:
        raise ValueError(f"the training ended with exit code {code}; its messages stand above")
    return {"dtype": dtype, **found}
