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
PRODUCTS = 6 * LAYERS + 1  # of weights, and of the word table


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
    assert set(graphs) == {"feed 16", "score 16", "feed 64", "score 64", "step", "copy"}
    for name in ("feed 16", "feed 64", "step"):
        operators = graphs[name]
        assert operators["MatMul float16"] == PRODUCTS and operators["ScatterNdUpdate float16"] == 2 * LAYERS
        assert not any(each in operators for each in ("MatMul float32", "BatchMatMul float32"))
        rows = 2 * LAYERS + name.startswith("feed")  # of the cache, and the last token's
        assert operators["Gather float16"] == rows, operators
        if attention == "flash":
            assert operators["FlashAttentionScore"] == LAYERS and "BatchMatMul float16" not in operators
        else:
            assert operators["BatchMatMul float16"] == 2 * LAYERS and "FlashAttentionScore" not in operators
    assert graphs["score 64"] == graphs["score 16"] and graphs["score 64"]["MatMul float16"] == 1
    assert graphs["copy"]["ScatterUpdate float16"] == 2 * LAYERS
