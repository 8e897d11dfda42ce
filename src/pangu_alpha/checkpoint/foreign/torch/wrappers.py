"""What other programs put in front of a network's names, and keep beside its tensors: taken off, and said.

Knows names only. Of what is not known nothing is taken off: a reader then shows the names it found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.untrusted import few
from pangu_alpha.files.shown import quoted

Tensor = TypeVar("Tensor")

# DistributedDataParallel and DeepSpeed; torch.compile; Lightning; PEFT; FSDP; training scripts; MindSpore's
# cells around a network; Megatron-LM. Several may stand in one another.
_FRONTS = (
    "module", "_orig_mod", "state_dict", "model", "_forward_module", "base_model", "_fsdp_wrapped_module",
    "model_state_dict", "net", "network", "_network", "_backbone", "language_model",
)  # fmt: skip
_FRONT = re.compile(rf"(?:(?:{'|'.join(_FRONTS)})\.)*")
# Keys beside the weights in files of training scripts, of which nothing is wanted here.
_ASIDE = re.compile(r"(?:optimizer|optim|lr_?sched|scheduler|rng|random|cuda_rng|torch_rng|grad_scaler|amp)")


def unwrapped(
    found: Mapping[str, Tensor], anchors: Iterable[str], usual: Iterable[str] = ("",)
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors by their names without a known front.

    Args:
        found: By the names found.
        anchors: Names that a network of the form always has one of.
        usual: Fronts that belong to the form, of which nothing is said.

    Returns:
        The tensors, and what the user should know.

    Raises:
        CheckpointError: The weights are there several times, behind different fronts.
    """
    fronts: dict[str, str] = {}
    for anchor in anchors:
        for name in (name for name in found if name.endswith(anchor)):
            if _FRONT.fullmatch(front := name.removesuffix(anchor)):
                fronts.setdefault(front, name)
    if len(fronts) > 1:
        raise CheckpointError(
            f"the weights are there {len(fronts)} times, as {few(map(quoted, sorted(fronts.values())))}; "
            "save one of them alone"
        )
    front = next(iter(fronts), "")
    if not front:
        return dict(found), ()
    inside = {name.removeprefix(front): each for name, each in found.items() if name.startswith(front)}
    others = {name: each for name, each in found.items() if not name.startswith(front)}
    aside = [name for name in others if _ASIDE.match(name)]
    for name in others.keys() - aside:
        if name in inside:
            raise CheckpointError(f"{name} is there with {front!r} before it, too; save one of them alone")
        inside[name] = others[name]
    notes = [] if front in usual else [f"{front!r} taken off the names of {len(found) - len(others)} tensors"]
    if aside:
        notes.append(f"left aside, beside the weights: {len(aside)} tensors such as {quoted(aside[0])}")
    return inside, tuple(notes)
