"""The only file that sets a MindSpore context."""

from __future__ import annotations

import mindspore as ms

from pangu_alpha.config.parallel import ParallelPlan

_RECURSION = 10_000  # calls nested in a graph; 64 layers need more than MindSpore's 1,000


def use_device(device: str = "auto") -> str:
    """Chooses the device of this process and graph mode; call it before any cell is made.

    Args:
        device: "CPU", "Ascend", or "auto": Ascend where MindSpore finds one, else CPU.

    Returns:
        The device type chosen.

    Raises:
        ValueError: Ascend was asked for and there is none.
    """
    if device == "auto":
        device = ms.get_context("device_target")  # what MindSpore found when it was imported
    if device == "Ascend" and not ms.device_context.ascend.is_available():
        raise ValueError(
            "device: Ascend was asked for, but MindSpore finds no Ascend device or no CANN; "
            "check `npu-smi info` and CANN's set_env.sh, or use --device CPU (run.device=CPU in training)"
        )
    ms.set_device(device)
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_recursion_limit(_RECURSION)
    return device


def device_number(device: str) -> int | None:
    """The NPU that this process uses, among those it may use; None on CPU.

    Args:
        device: What `use_device` chose.
    """
    return ms.get_context("device_id") if device == "Ascend" else None


def simulate_ascend() -> None:
    """Graph mode for Ascend in a process that only compiles; its environment says that it is a simulation."""
    ms.set_context(mode=ms.GRAPH_MODE, device_target="Ascend")
    ms.set_recursion_limit(_RECURSION)


def partition(plan: ParallelPlan, rank: int, search: str | None = None) -> None:
    """Makes MindSpore split the graphs of this process by a plan; after mindspore.communication.init().

    Each rank feeds its own rows of the batch.

    Args:
        plan: How.
        rank: This process's.
        search: MindSpore's own strategy search instead of the plan's sharding table:
            "recursive_programming" or "sharding_propagation".
    """
    settings = {}
    if plan.optimizer_parallel != "none":
        settings["enable_parallel_optimizer"] = True
        settings["parallel_optimizer_config"] = {
            "parallel_optimizer_threshold": plan.optimizer_threshold,
            "optimizer_level": plan.optimizer_parallel,
        }
    if plan.pp > 1:
        settings["pipeline_config"] = {
            "pipeline_interleave": plan.schedule != "1f1b",  # MindSpore 2.9 wants it for any other
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
        dataset_strategy=((plan.dp, 1),) * 5,  # input_ids, labels, loss_mask, position_ids, document_ids
        **settings,
    )
