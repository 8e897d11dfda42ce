"""Families of Ascend chips: the facts that the operators and the optimizer step need, with their sources.

The names are those of cluster.chips, which has the facts of servers and links; planner/cost has the speeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pangu_alpha.config.model import ComputeType, ModelConfig

# The level at which MindSpore compiles for Ascend: kernel by kernel, in the order of the graph that a dry run
# shows. "O1" fuses operators after that graph; "O2", deprecated in 2.9, passes it to CANN's GraphEngine,
# which reorders and merges by rules of its own. If nothing is set, MindSpore chooses.
JIT_LEVEL = "O0"

Chip = Literal["910A", "910B", "910C"]


@dataclass(frozen=True)
class Family:
    """A family of chips.

    Args:
        products: Huawei's name of its products.
        soc_version: MindSpore 2.9's name (nn/wrap/loss_scale.py, amp.py). It is not the chip's own name:
            "Ascend910B" without a digit is a 910A, "Ascend910B1" to "Ascend910B4" are the A2.
        flash_attention: Whether it has a kernel for FlashAttentionScore and its gradient.
        saturates: Whether a result beyond the largest number becomes that number, and NaN becomes 0, so that
            only the chip's float status shows an overflow. The others give inf and NaN as IEEE 754 does.
        compute_types: Types that matrix products can have.
        default_type: The meaning of "auto" for compute_dtype.
    """

    products: str
    soc_version: str
    flash_attention: bool
    saturates: bool
    compute_types: tuple[ComputeType, ...]
    default_type: str = "float16"


# Sources (hiascend.com, read in 2026):
# flash_attention: CANN operator page aclnnFlashAttentionScore (commercial 7.0: "not supported" on Atlas
#   training products, supported on A2; community 8.5 and README of FlashAttentionScore: A2 and A3 training
#   products only).
# saturates: page of aclrtFloatOverflowMode (CANN 9.1: Atlas training products have the saturation mode only;
#   A2 and A3 have both, Inf/NaN by default); page of set_device_sat_mode says the same.
# compute_types: CANN page ToBfloat16 and the operators' pages ("Atlas training products: no BFLOAT16"). Page
#   of aclnnMm (commercial 8.0.RC1), cubeMathType: on Atlas training products float32 is an error if the type
#   is to be kept, as MindSpore 2.9 asks (matmul_allow_hf32 is off), and is made float16 if it need not be.
# default_type: the official models of 2021 compute in float16; kept on all, so that "auto" means one thing.
FAMILIES: dict[str, Family] = {
    "910A": Family("Atlas training products", "ascend910", False, True, ("float16",)),
    "910B": Family(
        "Atlas A2 training products", "ascend910b", True, False, ("float16", "bfloat16", "float32")
    ),
    "910C": Family(
        "Atlas A3 training products", "ascend910_93", True, False, ("float16", "bfloat16", "float32")
    ),
}


def compute_type(model: ModelConfig, chip: str) -> str:
    """Type of a model's matrix products on a chip: "float16", "bfloat16" or "float32"."""
    return FAMILIES[chip].default_type if model.compute_dtype == "auto" else model.compute_dtype


def has_flash_attention(model: ModelConfig, chip: str) -> bool:
    """Whether training of a model on a chip uses FlashAttentionScore: in half precision, without dropout."""
    half = compute_type(model, chip) != "float32"
    return FAMILIES[chip].flash_attention and half and model.dropout == 0.0


def unsupported(model: ModelConfig, chip: str) -> str | None:
    """Says why a chip cannot compute a model; None if it can."""
    wanted, family = compute_type(model, chip), FAMILIES[chip]
    if wanted in family.compute_types:
        return None
    return (
        f"model.compute_dtype: {wanted}, but a {chip} ({family.products}) has no {wanted} matrix products; "
        f"take {' or '.join(family.compute_types)}"
    )


def chip_of(soc_version: str) -> str | None:
    """Returns the chip with this name in MindSpore; None if it is not in the table."""
    return next((chip for chip, each in FAMILIES.items() if each.soc_version == soc_version), None)
