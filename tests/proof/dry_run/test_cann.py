from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pangu_alpha.proof.dry_run import cann

ACCEPT = """
import mindspore as ms
from mindspore.communication import get_group_size, get_rank, init
from pangu_alpha.proof.graph import private
ms.set_context(mode=ms.GRAPH_MODE, device_target="Ascend")
private.allow_missing_hccl()
init()
print("accepted", get_rank(), get_group_size())
"""


@pytest.fixture(autouse=True)
def no_cann(monkeypatch):
    """As on a machine without CANN."""
    for name in ("LD_LIBRARY_PATH", "ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "RANK_ID", "RANK_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """(cache folder, folder of stubs), built once."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LD_LIBRARY_PATH", "ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
            patch.delenv(name, raising=False)
        return cache, cann.ensure_libraries(cache)


def real_cann(folder: Path) -> Path:
    (folder / "lib64").mkdir(parents=True)
    (folder / "lib64" / "libascendcl.so").touch()
    return folder / "lib64"


def test_mindspore_accepts_ascend_and_any_world_with_the_stubs(stubs):
    environment = cann.dry_run_environment(5, 2048, cache=stubs[0])
    done = subprocess.run(
        [sys.executable, "-c", ACCEPT], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "accepted 5 2048" in done.stdout, done.stderr[-2000:]


def test_without_the_stubs_it_does_not(stubs):
    environment = cann.plain_environment(cann.dry_run_environment(0, 2, cache=stubs[0]))
    done = subprocess.run(
        [sys.executable, "-c", ACCEPT], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "accepted" not in done.stdout


def test_stubs_are_built_once(stubs, monkeypatch):
    cache, folder = stubs
    monkeypatch.setattr(cann, "_build", lambda *_: pytest.fail("built again"))
    assert cann.ensure_libraries(cache) == folder
    assert "cann" in str(folder.relative_to(cache))
    assert "2.9.0" in str(folder)


def test_builders_at_once_leave_one_whole_folder(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(cann.ensure_libraries, [tmp_path] * 3))
    assert len(folders) == 1
    assert (folders.pop() / "libascendcl.so").exists()
    assert len(list((tmp_path / "cann_stubs").iterdir())) == 1  # no scratch folder stays


def test_another_recipe_does_not_take_the_cached_stubs(stubs, monkeypatch):
    plugin = cann._check_host()
    libraries = cann._loaded_libraries(plugin)
    before = cann._digest(libraries)
    monkeypatch.setattr(cann, "_RECIPE", cann._RECIPE + 1)
    assert before in str(stubs[1])
    assert cann._digest(libraries) != before


@pytest.mark.parametrize("variable", ["ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "LD_LIBRARY_PATH"])
def test_a_real_cann_is_preferred(variable, tmp_path, monkeypatch):
    folder = real_cann(tmp_path / "cann")
    monkeypatch.setenv(variable, str(folder if variable == "LD_LIBRARY_PATH" else folder.parent))
    monkeypatch.setattr(cann, "_build", lambda *_: pytest.fail("stubs built"))
    assert cann.ensure_libraries() == folder
    assert cann.dry_run_environment(0, 2)["LD_LIBRARY_PATH"] == str(folder)


def test_stubs_are_never_taken_for_a_real_cann(stubs):
    assert cann.installed_cann({"LD_LIBRARY_PATH": str(stubs[1])}) is None


def test_the_environment_of_a_dry_run(stubs, monkeypatch):
    cache, folder = stubs
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/other")
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment = cann.dry_run_environment(3, 8, cache=cache)
    assert environment["LD_LIBRARY_PATH"] == f"{folder}:/opt/other"
    assert [environment[name] for name in ("MS_SIMULATION_LEVEL", "RANK_ID", "RANK_SIZE")] == ["0", "3", "8"]
    assert environment["OMP_NUM_THREADS"] == "3"
    assert "MS_ROLE" not in environment


def test_the_plain_environment_has_nothing_of_it(stubs, tmp_path, monkeypatch):
    real = real_cann(tmp_path)
    monkeypatch.setenv("PANGU_WORD", "kept")
    dry = cann.dry_run_environment(3, 8, cache=stubs[0])
    plain = cann.plain_environment(dry)
    assert not {"LD_LIBRARY_PATH", "MS_SIMULATION_LEVEL", "RANK_ID", "RANK_SIZE"} & set(plain)
    assert plain["PANGU_WORD"] == "kept"
    dry["LD_LIBRARY_PATH"] += f":{real}"
    assert cann.plain_environment(dry)["LD_LIBRARY_PATH"] == str(real)


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank, world):
    with pytest.raises(ValueError, match=f"rank {rank}: must be from 0 to"):
        cann.dry_run_environment(rank, world)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("platform.machine", lambda: "aarch64", "not Linux on aarch64; install CANN"),
        ("platform.system", lambda: "Darwin", "not Darwin on x86_64; install CANN"),
        ("shutil.which", lambda _: None, "no gcc to build stubs"),
        ("util.find_spec", lambda _: None, "MindSpore is not installed; pip install mindspore==2.9.0"),
        ("metadata.version", lambda _: "3.1.4", "for MindSpore 2.9.0, not for 3.1.4"),
    ],
)
def test_where_stubs_cannot_work_they_are_refused(name, value, words, monkeypatch, tmp_path):
    monkeypatch.setattr(f"pangu_alpha.proof.dry_run.cann.{name}", value)
    with pytest.raises(ValueError, match=words):
        cann.ensure_libraries(tmp_path)


def test_a_failing_compiler_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(cann, "_assembly", lambda _: "no such instruction\n")
    with pytest.raises(ValueError, match=r"(?s)gcc -shared .* failed: .*no such instruction"):
        cann.ensure_libraries(tmp_path)
    assert list((tmp_path / "cann_stubs").iterdir()) == []
