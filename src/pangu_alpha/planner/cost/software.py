"""Decides what a stack leaves to the model and the device: whether attention is fused."""

from __future__ import annotations

import dataclasses

from pangu_alpha.config.families import has_flash_attention
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.planner.cost.hardware import Stack


def software_of(stack: Stack, model: ModelConfig, family: str) -> Stack:
    """Returns the stack with `fused_attention` decided for a model on a device.

    Args:
        stack: The stack; one that has decided already is returned unchanged.
        model: The model; its dropout and compute type matter.
        family: Family of an Ascend chip, as Device.family; for other devices no fused kernel is known.
    """
    if stack.fused_attention is not None:
        return stack
    fused = bool(family) and has_flash_attention(model, family)
    return dataclasses.replace(stack, fused_attention=fused)
