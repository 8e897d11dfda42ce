"""A run in medium precision resumes bit for bit, stays near float32's losses, or is refused early."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.checkpoint.native.format import read_checkpoint
from pangu_alpha.cli.train import main
from pangu_alpha.model.operators.native.library import missing_bfloat16
from pangu_alpha.training.reporting.report import read_metrics

MEDIUM = "run.float32_matmul_precision=medium"


def losses(run):
    return [entry["loss"] for entry in read_metrics(run / "metrics.jsonl") if "loss" in entry]


def state(run):
    checkpoint = read_checkpoint(run / "checkpoints" / "step_00000020")
    return {name: array for stem in ("model", "optimizer") for name, array in checkpoint.load(stem).items()}


def test_resume_is_bit_for_bit(cpu, settings, config_file, tmp_path):
    if problem := missing_bfloat16():
        pytest.skip(problem)
    settings["run"]["peak_tflops"] = None  # measured in the precision of the run
    settings["data"] = settings["data"] | {"validation": None}
    config = config_file(settings)
    run, resumed, highest = (tmp_path / name for name in ("run", "resumed", "highest"))
    assert main(["--config", config, MEDIUM]) == 0
    half = run / "checkpoints" / "step_00000010"
    assert main(["--config", config, MEDIUM, "--resume", str(half), f"run.output={resumed}"]) == 0
    expected, found = state(run), state(resumed)
    assert expected.keys() == found.keys() and len(found) == 3 * 53
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array.view(np.uint32), expected[name].view(np.uint32), err_msg=name)
    assert losses(resumed) == losses(run)[10:]
    assert main(["--config", config, f"run.output={highest}"]) == 0
    assert losses(highest) != losses(run)
    np.testing.assert_allclose(losses(run), losses(highest), rtol=2e-3)


def test_without_kernels_it_is_refused_before_training(cpu, settings, config_file, tmp_path, monkeypatch):
    monkeypatch.setattr("pangu_alpha.model.operators.missing_bfloat16", lambda: "there is none; leave it out")
    with pytest.raises(ValueError, match="'medium' multiplies in bfloat16, but there is none; leave it out"):
        main(["--config", config_file(settings), MEDIUM])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
