"""Which parameters of a checkpoint are kept but not trained, and therefore have no moments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.files.shown import quoted

STATE = "frozen"  # key of Manifest.state with their sorted names; absent if everything is trained

Shape = tuple[int, ...]


def frozen_of(manifest: Manifest, where: Path) -> frozenset[str]:
    """Returns the names of the parameters that a run keeps but does not train.

    Args:
        manifest: The manifest of the run's checkpoint.
        where: The checkpoint, for the error.

    Raises:
        CheckpointError: The manifest's entry is not a list of names.
    """
    names = manifest.state.get(STATE, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{where}: state.{STATE} holds no names of parameters: {quoted(names, 200)}")
    return frozenset(names)


def moment_shapes(shapes: Mapping[str, Shape], manifest: Manifest, where: Path) -> dict[str, Shape]:
    """Returns the shape of every moment in a checkpoint with optimizer state.

    Args:
        shapes: Shapes of all parameters, frozen ones included.
        manifest: Names the frozen parameters.
        where: The checkpoint, for the error.

    Raises:
        CheckpointError: The manifest's entry is not a list of names.
    """
    frozen = frozen_of(manifest, where)
    trained = {name: shape for name, shape in shapes.items() if name not in frozen}
    return {prefix + name: shape for prefix in MOMENTS for name, shape in trained.items()}
