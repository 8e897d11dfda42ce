"""Where libraries of kernels are kept, what two in one process share, and how many cores they use."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import pytest

from pangu_alpha.model.operators.native import library as library_module
from pangu_alpha.processes.cores import usable_cores

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


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    at_home = tmp_path / "home/.cache/pangu_alpha/kernels"
    for wish, folder in (
        (str(tmp_path / "fast"), tmp_path / "fast/pangu_alpha/kernels"),
        ("relative", at_home),
        ("", at_home),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", wish)
        assert library_module.cache_folder() == folder
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert library_module.cache_folder() == at_home


def test_without_a_home_there_are_no_kernels_unless_a_cache_is_named(monkeypatch, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(
        library_module.NoKernelsError, match="no home folder; name a folder .* XDG_CACHE_HOME"
    ):
        library_module.cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library_module.cache_folder() == tmp_path / "pangu_alpha/kernels"


FIRST = "4:memory:/a\n3:cpu,cpuacct:/a/b\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "max 100000"}, 1),
        ("0::/a\n", {"a/cpu.max": "9900000 100000"}, 16),
        ("0::/machine.slice/x\n", {"cpu.max": "400000 100000"}, 4),  # the container's own group, as its root
        (FIRST, {"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, 16),
        (FIRST, {"cpu/a/cpu.cfs_quota_us": "350000", "cpu/a/cpu.cfs_period_us": "100000"}, 4),
        (FIRST, {"cpu,cpuacct/cpu.cfs_quota_us": "10000", "cpu,cpuacct/cpu.cfs_period_us": "5000"}, 2),
        (FIRST, {"memory/a/cpu.cfs_quota_us": "10000", "memory/a/cpu.cfs_period_us": "5000"}, 16),
        (FIRST + "0::/a\n", {"a/cpu.max": "300000 100000"}, 3),
    ],
)
def test_a_quota_of_a_control_group_limits_the_threads(monkeypatch, tmp_path, groups, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    written = {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n" * (name != "proc/self/cgroup"))
    assert usable_cores(tmp_path) == cores


def test_without_control_groups_all_cores_of_the_process_count(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert usable_cores(tmp_path) == 2
