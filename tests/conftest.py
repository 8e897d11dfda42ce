"""What several parts' tests share: the oracle's arrays and the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def oracle():
    """Arrays of the official code's forward and backward passes, by name."""
    return dict(np.load(FIXTURES / "oracle_tiny.npz"))


@pytest.fixture(scope="session")
def oracle_training():
    """Arrays of six optimizer steps of the official code, by name."""
    return dict(np.load(FIXTURES / "oracle_train_6_steps.npz"))


@pytest.fixture(scope="session")
def cpu():
    """Puts MindSpore on the CPU in graph mode; for every test that runs a cell."""
    from pangu_alpha.parallel.context import use_device

    return use_device("CPU")
