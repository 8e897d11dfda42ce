from __future__ import annotations

import numpy as np

from pangu_alpha.checkpoint.native.format import Manifest, read_checkpoint, write_checkpoint
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes


def test_the_script_merges(script, tmp_path):
    model = ModelConfig(vocab_size=11, hidden_size=8, num_layers=2, num_heads=2, seq_length=4)
    arrays = {name: np.ones(shape, np.float32) for name, shape in parameter_shapes(model).items()}
    manifest = Manifest(3, 9, {"model": to_mapping(model)}, kind="weights")
    write_checkpoint(tmp_path / "a b", {"model": arrays}, manifest)
    process = script("run_merge.sh", str(tmp_path / "a b"), str(tmp_path / "made"), "--tp", "2")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "+ exec python" in output and "dp 1, tp 2, pp 1" in output
    assert set(read_checkpoint(tmp_path / "made").manifest.parts) == {"rank_00000", "rank_00001"}
    again = script("run_merge.sh", str(tmp_path / "a b"), str(tmp_path / "made"), "--tp", "2")
    assert "error: " in again.communicate(timeout=60)[0] and again.returncode == 2
