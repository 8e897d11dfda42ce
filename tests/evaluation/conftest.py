"""Lets the tests of evaluation import the modules beside this one; makes evaluation files and results."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))

import hand_made
from made_up_results import Made


@pytest.fixture(scope="session")
def eval_data(tmp_path_factory):
    """A folder with hand-made files of every task, in the folders and names of the published ones."""
    folder = tmp_path_factory.mktemp("eval")
    hand_made.write_all(folder)
    return folder


@pytest.fixture
def made():
    """Makes and writes results."""
    return Made()


@pytest.fixture
def answers():
    """Generated answers and their references."""
    rng = np.random.default_rng(0)
    references = [["".join(rng.choice([*"甲乙丙丁"], 8))] for _ in range(40)]
    return [text[0][: rng.integers(4, 9)] for text in references], references
