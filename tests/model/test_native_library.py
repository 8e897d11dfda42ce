"""What two libraries of kernels in one process share: nothing."""

from __future__ import annotations

import ctypes
import shutil

import pytest

from pangu_alpha.model.operators.native import library as library_module

MEMORY = """
#include "scratch.h"
extern "C" void* memory() { return pangu::scratch(pangu::Use::all, 1); }
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_libraries_of_one_process_have_memory_of_their_own(monkeypatch, tmp_path):
    """Another version may have other uses of it, and would reach beyond the table of the first one."""
    sources = tmp_path / "source"
    sources.mkdir()
    shutil.copy(library_module.SOURCES / "scratch.h", sources)
    (sources / "one.cc").write_text(MEMORY)
    monkeypatch.setattr(library_module, "SOURCES", sources)
    found = []
    for flags in ((), ("-DANOTHER",)):
        memory = ctypes.CDLL(str(library_module.build(tmp_path, flags))).memory
        memory.restype = ctypes.c_void_p
        assert memory() == memory()
        found.append(memory())
    assert found[0] != found[1]
