"""Removes what other programs put in front of a network's names, and tells which entries are not tensors.

Knows only names. An unknown prefix is left, so that a reader reports the names as they are stored.
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
# cells around a network; Megatron-LM. Several may be nested.
_FRONTS = (
    "module", "_orig_mod", "state_dict", "model", "_forward_module", "base_model", "_fsdp_wrapped_module",
    "model_state_dict", "net", "network", "_network", "_backbone", "language_model",
)  # fmt: skip
_FRONT = re.compile(rf"(?:(?:{'|'.join(_FRONTS)})\.)*")
# Keys beside the weights in files of training scripts; they are not needed here.
_ASIDE = re.compile(r"(?:optimizer|optim|lr_?sched|scheduler|rng|random|cuda_rng|torch_rng|grad_scaler|amp)")


def unwrapped(
    found: Mapping[str, Tensor], anchors: Iterable[str], usual: Iterable[str] = ("",)
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the tensors by their names without a known prefix.

    Args:
        found: By stored name.
        anchors: Names of which a network of the form always has one.
        usual: Prefixes that belong to the form and need no note.

    Returns:
        The tensors, and notes for the user.

    Raises:
        CheckpointError: The weights occur several times, behind different prefixes.
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
