"""Precision of float32 matrix products, by the names of torch.set_float32_matmul_precision."""

from __future__ import annotations

from typing import Literal

MatmulPrecision = Literal["highest", "medium"]

KEY = "run.float32_matmul_precision"
ONLY_CPU = (
    f"{KEY}: 'medium' is for CPUs only; leave it out, because on Ascend model.compute_dtype chooses the type "
    "of the products: float16, and on a 910B or 910C also bfloat16"
)
