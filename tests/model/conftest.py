"""Makes the modules beside these tests importable; kernels that several files need."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def kernels_of(cpu, tmp_path_factory):
    """kernels_of(lanes): the library as for a processor with vectors of so many floats.

    Each takes the compiler about 20 s, so that all processes of pytest-xdist share one folder.
    """
    from pangu_alpha.model.operators.native.library import build, library

    if library() is None:
        pytest.skip("no kernels on this machine")
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "kernels"
    return lambda lanes: library() if lanes == 16 else build(folder, (f"-DMOST_LANES={lanes}",))
