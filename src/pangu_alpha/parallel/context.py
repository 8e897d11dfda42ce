"""Sets MindSpore's contexts; no other file does."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import mindspore as ms

from pangu_alpha.config.families import FAMILIES, JIT_LEVEL, unsupported
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.model.chip import find_chip, soc_version

_OVERFLOW_MODE = "MS_ASCEND_CHECK_OVERFLOW_MODE"
_RECURSION = 10_000  # nested calls in a graph; 64 layers need more than MindSpore 2.9's default of 1,000

logger = logging.getLogger(__name__)


def use_device(device: str = "auto") -> str:
    """Chooses the device of this process, and graph mode; call it before any cell is made.

    Args:
        device: "CPU", "Ascend", or "auto": Ascend if MindSpore finds one, else CPU.

    Returns:
        The device type chosen.

    Raises:
        ValueError: Ascend is required, but there is none.
    """
    if device == "auto":
        device = ms.get_context("device_target")  # the device that MindSpore found when it was imported
    if device == "Ascend" and not ms.device_context.ascend.is_available():
        raise ValueError(
            "device: Ascend was asked for, but MindSpore finds no Ascend device or no CANN; "
            "check `npu-smi info` and CANN's set_env.sh, or use --device CPU (run.device=CPU in training)"
        )
    ms.set_device(device)
    ms.set_context(mode=ms.GRAPH_MODE)
    if device == "Ascend":
        ms.set_context(jit_config={"jit_level": JIT_LEVEL})
    ms.set_recursion_limit(_RECURSION)
    return device


def device_number(device: str) -> int | None:
    """Number of the NPU that this process uses, among those it may use; None on CPU.

    Args:
        device: Result of `use_device`.
    """
    return ms.get_context("device_id") if device == "Ascend" else None


def simulate_ascend() -> None:
    """Sets graph mode for Ascend in a process that only compiles; its environment requests a simulation."""
    ms.set_context(mode=ms.GRAPH_MODE, device_target="Ascend")
    ms.set_context(jit_config={"jit_level": JIT_LEVEL})
    ms.set_recursion_limit(_RECURSION)


def use_chip(chosen: str, model: ModelConfig) -> str:
    """Returns the chip that this process trains on; call it after `use_device` chose Ascend.

    Args:
        chosen: One of config.families.FAMILIES, or "auto" for the one that MindSpore finds.
        model: The model to train.

    Raises:
        ValueError: MindSpore finds another chip; or it finds no known one and none was chosen; or the chip
            does not have the model's compute type; or the environment sets an overflow mode that hides
            overflow.
    """
    found = find_chip()
    if chosen != "auto" and found not in (None, chosen):
        raise ValueError(f"run.chip: {chosen}, but MindSpore finds a {found}; leave run.chip out")
    if chosen == "auto" and found is None:
        raise ValueError(
            f"run.chip: MindSpore calls the chip {soc_version()!r}, which is none of "
            f"{', '.join(each.soc_version for each in FAMILIES.values())}; say which it is like: run.chip="
            f"{' or '.join(FAMILIES)} (a 910A has no flash attention and saturates on overflow)"
        )
    chip = found or chosen
    if problem := unsupported(model, chip):
        raise ValueError(problem)
    if not FAMILIES[chip].saturates and os.environ.get(_OVERFLOW_MODE) == "SATURATION_MODE":
        raise ValueError(
            f"{_OVERFLOW_MODE}: SATURATION_MODE hides overflow on a {chip}, where training looks for inf and "
            "NaN; unset it"
        )
    logger.info("chip %s, %s, jit level %s", chip, FAMILIES[chip].products, JIT_LEVEL)
    return chip


def partition(
    plan: ParallelPlan, rank: int, inputs: Sequence[tuple[int, ...]], search: str | None = None
) -> None:
    """Makes MindSpore split the graphs of this process by a plan; call mindspore.communication.init() first.

    Each rank feeds its own rows of the batch.

    Args:
        rank: Rank of this process.
        inputs: For each input of a step, the number of parts into which each dimension is cut.
        search: None uses the plan's operator table. "recursive_programming" or "sharding_propagation" uses
            MindSpore's own strategy search instead.
    """
    settings: dict[str, Any] = {}
    if plan.optimizer_parallel != "none":
        settings["enable_parallel_optimizer"] = True
        settings["parallel_optimizer_config"] = {
            "parallel_optimizer_threshold": plan.optimizer_threshold,
            "optimizer_level": plan.optimizer_parallel,
        }
    if plan.pp > 1:
        settings["pipeline_config"] = {
            "pipeline_interleave": plan.schedule != "1f1b",  # MindSpore 2.9 requires it for other schedules
            "pipeline_scheduler": plan.schedule,
        }
    if plan.gradient_fusion:
        bucket = {"mode": "size", "config": plan.gradient_fusion}
        settings["comm_fusion"] = dict.fromkeys(("allreduce", "allgather", "reducescatter"), bucket)
    if search:
        settings["search_mode"] = search
    ms.set_auto_parallel_context(
        parallel_mode="auto_parallel" if search else "semi_auto_parallel",
        device_num=plan.devices,
        global_rank=rank,
        pipeline_stages=plan.pp,
        dataset_strategy=tuple(inputs),
        **settings,
    )
