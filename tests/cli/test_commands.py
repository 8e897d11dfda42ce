"""The command pangu-alpha, its verbs, and the modules of cli as programs."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pangu_alpha
from pangu_alpha.__main__ import VERBS
from pangu_alpha.cli.plan.options import plan_parser

ROOT = Path(__file__).parents[2]
CLI = ROOT / "src/pangu_alpha/cli"


def module(path: Path) -> str:
    """What `python -m` is given for a file of cli, behind pangu_alpha.cli."""
    words = path.relative_to(CLI).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] in ("__init__", "__main__") else words)


COMMANDS = sorted(
    module(path) for path in CLI.rglob("*.py") if "    run_main(main)" in path.read_text("utf-8")
)
# Parts of commands by whose names one may call them, and what is to be called instead.
PARTS = {
    "plan.search": "pangu_alpha.cli.plan search",
    "plan.operators": "pangu_alpha.cli.plan operators",
    "plan.calibrate": "pangu_alpha.cli.plan calibrate",
    "plan.dry_run": "pangu_alpha.cli.plan dry-run",
    "plan.replay": "pangu_alpha.cli.plan replay",
    "plan.train_replay": "pangu_alpha.cli.plan train-replay",
    "launch.predict": "pangu_alpha launch predict",
}


def run(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)


def test_every_verb_has_a_program_that_runs_by_itself():
    assert {verb.replace("-", "_") for verb in VERBS} <= set(COMMANDS)
    programs = {path.stem for path in (ROOT / "src").glob("*.py")}
    assert programs <= {verb.replace("-", "_") for verb in VERBS}
    for path in CLI.rglob("*.py"):
        if "def main(" in path.read_text("utf-8"):
            assert module(path) in COMMANDS, f"{module(path)}: python -m would do nothing and exit 0"


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"launch", "launch.command"}))
def test_a_module_runs_as_a_program(name):
    done = run("-m", f"pangu_alpha.cli.{name}", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: ")
    wrong = run("-m", f"pangu_alpha.cli.{name}", "--no-such-option")
    assert wrong.returncode == 2 and ("no-such-option" in wrong.stderr or "required" in wrong.stderr)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_command_is_no_program_and_says_so(name):
    done = run("-m", f"pangu_alpha.cli.{name}", "--help")
    assert done.returncode == 2 and f"use `python -m {PARTS[name]}`" in done.stderr
    program = run("-m", *PARTS[name].split(), "--help")
    assert program.returncode == 0 and program.stdout.startswith("usage: ")


def test_every_module_that_looks_like_a_command_is_a_program_or_says_that_it_is_none():
    words = {word.replace("-", "_") for verb in ("plan", "launch") for word in subcommands(verb)}
    found = {module(path) for path in CLI.rglob("*.py") if path.stem in words}
    assert found - set(COMMANDS) == PARTS.keys()


def subcommands(verb):
    if verb == "launch":
        return ["train", "predict"]
    (inner,) = (each for each in plan_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return inner.choices


@pytest.mark.parametrize("verb", ["train"])
def test_a_verb_calls_its_program(verb):
    done = run("-m", "pangu_alpha", verb, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: pangu-alpha {verb} ")


def test_the_launcher_gets_the_file_that_workers_run(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"{{model: tiny, data: {{train: {{a: {{records: {tmp_path}}}}}}}, run: {{output: o, steps: 2}}}}"
    )
    words = ("run.steps=3", "--config", str(config), "--dry", "run.log_every=1", "--device", "CPU")
    done = run("-m", "pangu_alpha", "launch", "train", *words)
    assert done.returncode == 0, done.stderr
    program = str(Path(pangu_alpha.__file__).parent / "cli/train.py")
    assert f"{program} --config {config} run.steps=3 run.log_every=1 run.device=CPU" in done.stdout
    other = run("-m", "pangu_alpha", "launch", "train", "--config", "nowhere.yaml")
    assert other.returncode == 2 and "nowhere.yaml: cannot be read" in other.stderr
    help_of = run(program, "--help")
    assert help_of.returncode == 0 and help_of.stdout.startswith("usage: train.py")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "usage: pangu-alpha COMMAND"),
        (["--help"], 0, "merge-checkpoint"),
        (["--version"], 0, "pangu-alpha 0."),
        (["rank_table"], 2, "error: 'rank_table' is no command; did you mean 'rank-table'?"),
        (["trian", "--config", "x"], 2, "did you mean 'train'?"),
        (["launch"], 2, "launch: say what, as in `launch train --help`"),
        (["launch", "src/train.py"], 2, "launch: say what"),
        (["train", "--config", "nowhere.yaml"], 2, "nowhere.yaml: cannot be read"),
    ],
)
def test_the_command(words, code, said):
    done = run("-m", "pangu_alpha", *words)
    assert done.returncode == code and said in done.stdout + done.stderr


def test_the_help_imports_no_program():
    body = "import sys; from pangu_alpha.__main__ import main; main(['--help']); print(*sys.modules)"
    loaded = run("-c", body).stdout.split()
    assert not {"mindspore", "numpy", "pangu_alpha.cli.train", "pangu_alpha.cli.plan"} & set(loaded)


def test_a_wheel_has_the_command_and_the_yamls(tmp_path):
    tree = tmp_path / "tree"  # a build leaves files beside its sources
    for name in ("src", "model_zoo"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    done = run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(tree))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        text = archive.read(entry).decode()
        archive.extractall(tmp_path / "installed")
    assert "pangu-alpha = pangu_alpha.__main__:run" in text
    shipped = {path.name for path in (ROOT / "model_zoo").glob("*.yaml")}
    assert {f"pangu_alpha/model_zoo/{name}" for name in shipped} <= names and len(shipped) == 5
    assert {"pangu_alpha/planner/cost/devices.yaml", "pangu_alpha/text/corpora.yaml"} <= names
    call = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pangu_alpha.__main__ import run; run()"
    listed = run("-c", call, str(tmp_path / "installed"), "plan", "search", "--help")
    assert listed.returncode == 0 and "--global-batch" in listed.stdout


def test_the_launcher_has_a_help_of_its_own(capsys):
    from pangu_alpha.__main__ import main

    assert main(["launch", "--help"]) == 0
    assert "pangu-alpha launch train --help" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_launcher_by_itself_wants_a_program(words):
    done = run("-m", "pangu_alpha.cli.launch", *words)
    assert done.returncode == 2 and "give the program first" in done.stderr


def test_train_lists_its_keys_without_a_config(capsys):
    from pangu_alpha.cli.train import main

    for words, first in (
        (["--keys"], "model.vocab_size: "),
        (["--keys", "run.guard"], "run.guard.spike_factor: "),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0 and capsys.readouterr().out.startswith(first)
    with pytest.raises(ValueError, match=r"--keys: 'run.gard' is no key; did you mean 'run.guard'\?"):
        main(["--keys", "run.gard"])
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "--keys lists all keys" in said and "key=value" in said and "docs/configuration.md" in said
