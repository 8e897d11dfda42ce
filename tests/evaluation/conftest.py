"""Lets the tests of evaluation import the modules beside this one, and makes evaluation files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import hand_made


@pytest.fixture(scope="session")
def eval_data(tmp_path_factory):
    """A folder with hand-made files of every task, in the folders and names of the published ones."""
    folder = tmp_path_factory.mktemp("eval")
    hand_made.write_all(folder)
    return folder
