"""The interpreter that PANGU_PYTHON names is the only one; what is no interpreter is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "run_scripts"


@pytest.fixture
def folder(tmp_path):
    """A folder with a blank in its name."""
    (tmp_path / "a b").mkdir()
    return tmp_path / "a b"


def executable(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)
    return path


def bash(given, command, **environment):
    """What a script prints that has prepared its environment with PANGU_PYTHON=`given`."""
    environment = {**os.environ, "PANGU_PYTHON": str(given), **environment}
    text = f"set -euo pipefail; source '{SCRIPTS}/_environment.sh'; prepare_environment; {command}"
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=environment, check=False)


def test_it_is_the_python_of_all_that_is_started(folder):
    """Under its own name alone, in a folder with a blank, before another python on the PATH."""
    executable(folder / "python", "echo another one")
    given = folder / "only" / "python3.11"
    given.parent.mkdir()
    executable(given, f'exec {sys.executable} "$@"')
    command = "python -c 'import sys; print(sys.version_info[0])'; echo \"$PANGU_PYTHON\"; type -P msrun"
    done = bash(given, command, PATH=f"{folder}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    number, exported, msrun = done.stdout.splitlines()
    assert (number, exported) == ("3", str(given)) and msrun.endswith("/launcher/bin/msrun")


def test_a_name_and_a_relative_path_are_made_whole(folder):
    executable(folder / "python3.11", f'exec {sys.executable} "$@"')
    path = f"{folder}:{os.environ['PATH']}"
    assert bash("python3.11", 'echo "$PANGU_PYTHON"', PATH=path).stdout == f"{folder}/python3.11\n"
    environment = {**os.environ, "PANGU_PYTHON": "./python3.11"}
    text = f"source '{SCRIPTS}/_environment.sh'; prepare_environment; cd /; python -c 'print(7)'"
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.stdout == "7\n", done.stderr


@pytest.mark.parametrize(
    ("given", "said"), [("a b/python3.11", "a b/python3.11"), ("nowhere", "error: no Python")]
)
def test_the_virtual_environment_is_made_with_the_interpreter_that_python_names(folder, given, said):
    executable(folder / "python3.11", f'exec {sys.executable} "$@"')
    environment = {**os.environ, "PYTHON": str(folder.parent / given)}
    text = f"set -euo pipefail; source '{SCRIPTS}/_environment.sh'; python=$(find_python); echo \"$python\""
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=environment, check=False)
    assert said in done.stdout + done.stderr and done.returncode == (2 if "error" in said else 0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "there is no {}; give the path of an interpreter, or unset it"),
        ("folder", "{} is a folder; give the path of the interpreter in it"),
        ("text", "{} cannot be executed; give the path of an interpreter, or chmod +x it"),
        ("other", "{} does not run as a Python interpreter"),
        ("broken", "{} does not run as a Python interpreter"),
        ("old", "{} is Python 3.8; MindSpore 2.9 needs 3.10, 3.11 or 3.12"),
    ],
)
@pytest.mark.parametrize("script", ["run_standalone_train.sh", "run_merge.sh"])
def test_what_is_no_interpreter_is_refused(folder, script, kind, message):
    given = folder / "python3.11"
    if kind == "folder":
        given.mkdir()
    elif kind == "text":
        given.write_text("print(1)", "utf-8")
    elif kind == "broken":
        given.write_bytes(b"\x7fELF of another machine")
        given.chmod(0o755)
    elif kind != "none":
        executable(given, "echo 3.8" if kind == "old" else "exit 3")
    done = subprocess.run(
        ["bash", str(SCRIPTS / script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PANGU_PYTHON": str(given)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: PANGU_PYTHON: {message.format(given)}\n"


TRAINING = ("run_distribute_train", "run_standalone_train")
OTHERS = ("run_distribute_predict", "run_distribute_evaluate", "run_standalone_predict", "run_merge")


@pytest.mark.parametrize("name", TRAINING + OTHERS)
def test_help_on_a_fresh_machine_installs_nothing(tmp_path, name):
    environment = {key: value for key, value in os.environ.items() if key != "PANGU_PYTHON"}
    environment |= {"PANGU_VENV": str(tmp_path / "venv"), "PYTHON": "/bin/false"}
    script = [str(SCRIPTS / f"{name}.sh"), "--help"]
    done = subprocess.run(["bash", *script], capture_output=True, text=True, env=environment, timeout=20)
    assert done.returncode == 0, done.stderr
    assert f"bash run_scripts/{name}.sh" in done.stdout and "docs/" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_the_quickstart_s_help_starts_nothing(tmp_path):
    environment = os.environ | {"PANGU_PYTHON": "/bin/false"}
    script = ["bash", str(SCRIPTS / "quickstart.sh"), "--help"]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=20)
    assert done.returncode == 0 and "--work DIR" in done.stdout and "run.steps=200" in done.stdout
    assert done.stderr == ""
