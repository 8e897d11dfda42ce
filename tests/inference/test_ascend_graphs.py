"""A decoder's graphs compile for Ascend in half precision, with and without FlashAttention."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.proof.dry_run.cann import dry_run_environment
from pangu_alpha.proof.dry_run.stub_calls import refuse_unknown

CHILD = Path(__file__).with_name("ascend_graphs.py")
LAYERS = 2
PRODUCTS = 6 * LAYERS  # of weights


@pytest.mark.parametrize("attention", ["910A", "flash"])
def test_all_graphs_compile_for_ascend(attention):
    done = subprocess.run(
        [sys.executable, str(CHILD), attention],
        env=dry_run_environment(0, 1),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    refuse_unknown(found["stubs"])
    graphs = found["graphs"]
    assert set(graphs) == {
        *("feed 32", "feed 64", "score 1", "score 32", "score 64"),
        *("step", "copy", "clear"),
    }
    for name in ("feed 32", "feed 64", "step"):
        operators = graphs[name]
        products = PRODUCTS + (name == "step")  # the word table's
        assert operators["MatMul float16"] == products and operators["ScatterNdUpdate float16"] == 2 * LAYERS
        assert not any(each in operators for each in ("MatMul float32", "BatchMatMul float32"))
        rows = 2 * LAYERS + name.startswith("feed")  # of the cache, and the last token's
        assert operators["Gather float16"] == rows, operators
        if attention == "flash":
            assert operators["FlashAttentionScore"] == LAYERS and "BatchMatMul float16" not in operators
        else:
            assert operators["BatchMatMul float16"] == 2 * LAYERS and "FlashAttentionScore" not in operators
    assert graphs["score 64"] == graphs["score 32"] == graphs["score 1"]
    assert graphs["score 64"]["MatMul float16"] == 1
    for name in ("copy", "clear"):
        assert graphs[name]["ScatterUpdate float16"] == 2 * LAYERS
