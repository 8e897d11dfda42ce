"""What a stack leaves to the model and the device: whether attention is fused."""

from __future__ import annotations

import dataclasses

from pangu_alpha.config.families import has_flash_attention
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.planner.cost.hardware import Stack


def software_of(stack: Stack, model: ModelConfig, family: str) -> Stack:
    """A stack in which attention is as the operators are that train a model on a device.

    Args:
        stack: One that decides itself is given back.
        model: Its dropout and compute type matter.
        family: Of Ascend chips, as Device.family; for other devices no kernel is known to fuse attention.
    """
    if stack.fused_attention is not None:
        return stack
    fused = bool(family) and has_flash_attention(model, family)
    return dataclasses.replace(stack, fused_attention=fused)
