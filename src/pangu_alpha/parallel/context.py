"""The only file that sets a MindSpore context."""

from __future__ import annotations

import mindspore as ms


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
            "check `npu-smi info` and CANN's set_env.sh, or use device=CPU"
        )
    ms.set_device(device)
    ms.set_context(mode=ms.GRAPH_MODE)
    return device
