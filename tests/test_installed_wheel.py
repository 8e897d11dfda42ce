"""What `pip install .` gives: a wheel in an environment of its own, used from a folder that is no checkout.

The environment sees the packages of this one by a .pth file, so that nothing is fetched; pangu_alpha itself
comes from the wheel alone.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_CHARACTERS = "天下大势分久必合曹操玄德孔明关羽张飞中国的首都是却说话次日军马人不之一"
_RUN = """\
model: {vocab_size: 120, hidden_size: 32, num_layers: 2, num_heads: 4, seq_length: 32}
data:
  train: {text: {records: data/train}}
  vocabulary: data/vocab.model
run: {output: runs/mine, steps: 3, batch_size: 2, tensorboard: false, peak_tflops: 0.1}
"""


class Installed:
    """An environment with the wheel, and a folder in which a user works."""

    def __init__(self, folder: Path):
        self.venv = folder / "venv"
        self.work = folder / "work"
        self.work.mkdir()
        self._install(_sources(folder / "tree"))

    def _install(self, tree: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.packages = self.venv / "lib" / version / "site-packages"
        shared = [path for path in sys.path if path.endswith("site-packages")]
        self.packages.joinpath("shared.pth").write_text("\n".join(shared) + "\n", "utf-8")
        words = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--no-index", str(tree)]
        pip = [sys.executable, "-m", "pip", "--python", str(self.venv / "bin/python"), "install", *words]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *words: str, timeout: float = 300) -> str:
        """What a program of the environment prints; it must succeed."""
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PANGU_")}
        environment |= {"PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        program = [str(self.venv / "bin" / words[0]), *words[1:]]
        done = subprocess.run(
            program, cwd=self.work, env=environment, timeout=timeout, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}"
        return done.stdout


def _sources(tree: Path) -> Path:
    """A copy of what the wheel is made of: a build leaves files beside its sources."""
    for name in ("src", "model_zoo"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("wheel"))


def test_the_command_is_that_of_the_wheel(installed):
    said = installed.run("pangu-alpha", "predict", "--help")
    assert said.startswith("usage: pangu-alpha predict ") and "--checkpoint" in said
    place = installed.run("python", "-c", "import pangu_alpha; print(pangu_alpha.__file__)")
    assert Path(place.strip()).is_relative_to(installed.packages)


def test_everything_beside_the_programs_is_there_with_its_mode(installed):
    """Each file of the package that is no program, byte for byte, and what can be executed still can be."""
    source, package = ROOT / "src/pangu_alpha", installed.packages / "pangu_alpha"
    others = [
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    ]
    assert {path.suffix for path in others} >= {".yaml", ""} and len(others) >= 5
    for path in others:
        ours, theirs = source / path, package / path
        assert theirs.is_file(), f"{path} is not in the wheel"
        assert theirs.read_bytes() == ours.read_bytes()
        if ours.stat().st_mode & stat.S_IXUSR:
            assert os.access(theirs, os.X_OK), f"{path} cannot be executed"
    zoo = {path.name for path in (ROOT / "model_zoo").glob("*.yaml")}
    assert {path.name for path in (package / "model_zoo").glob("*.yaml")} == zoo
    modules = {path.relative_to(source) for path in source.rglob("*.py")}
    assert modules <= {path.relative_to(package) for path in package.rglob("*.py")}


def test_programs_find_their_data(installed):
    assert "sanguo" in installed.run("pangu-alpha", "fetch", "--list")
    words = ("--model", "tiny", "--cluster", "910b-8", "--global-batch", "8")
    assert "best:" in installed.run("pangu-alpha", "plan", "search", *words)


@pytest.mark.long
def test_a_run_from_text_to_text(installed):
    """Vocabulary, records, a run of one process and one of two workers, and a continuation."""
    rng = random.Random(5)
    lines = ["".join(rng.choices(_CHARACTERS, k=rng.randrange(8, 40))) + "。" for _ in range(400)]
    installed.work.joinpath("text.txt").write_text("\n".join(lines), "utf-8")
    installed.work.joinpath("run.yaml").write_text(_RUN, "utf-8")
    run = installed.run
    run("pangu-alpha", "vocab", "--input", "text.txt", "--size", "120", "--output", "data/vocab.model")
    run("pangu-alpha", "preprocess", "--input", "text.txt", "--vocabulary", "data/vocab.model",
        "--output", "data/train", "--seq-length", "32")  # fmt: skip
    run("pangu-alpha", "train", "--config", "run.yaml", "run.device=CPU")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    run("pangu-alpha", "launch", "train", "--config", "run.yaml", "--device", "CPU", "--nproc", "2",
        "--master-port", port, "parallel.dp=2", "run.batch_size=1", "run.output=runs/two",
        "model.dropout=0")  # fmt: skip
    steps = {
        name: [json.loads(line)["step"] for line in (installed.work / name).read_text().splitlines()]
        for name in ("runs/mine/metrics.jsonl", "runs/two/metrics.jsonl")
    }
    assert set(map(tuple, steps.values())) == {(1, 2, 3)}
    said = run("pangu-alpha", "predict", "--checkpoint", "runs/two", "--prompt", "却说曹操",
               "--max-new-tokens", "4", "--greedy", "--device", "CPU")  # fmt: skip
    assert "却说曹操" in said and "[length]" in said
