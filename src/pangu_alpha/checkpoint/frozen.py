"""Which parameters of a checkpoint are kept without being trained, so that they have no moments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.files.shown import quoted

STATE = "frozen"  # of Manifest.state: their names, sorted; left out where everything is trained

Shape = tuple[int, ...]


def frozen_of(manifest: Manifest, where: Path) -> frozenset[str]:
    """Names of the parameters that a run keeps and does not train.

    Args:
        manifest: Of its checkpoint.
        where: The checkpoint, for the error.

    Raises:
        CheckpointError: The manifest does not hold names there.
    """
    names = manifest.state.get(STATE, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{where}: state.{STATE} holds no names of parameters: {quoted(names, 200)}")
    return frozenset(names)


def moment_shapes(shapes: Mapping[str, Shape], manifest: Manifest, where: Path) -> dict[str, Shape]:
    """Shape of every moment that a checkpoint with optimizer state has.

    Args:
        shapes: Of all parameters.
        manifest: See `frozen_of`; likewise below.
        where: The checkpoint.

    Raises:
        CheckpointError: See `frozen_of`.
    """
    frozen = frozen_of(manifest, where)
    trained = {name: shape for name, shape in shapes.items() if name not in frozen}
    return {prefix + name: shape for prefix in MOMENTS for name, shape in trained.items()}
