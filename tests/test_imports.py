"""The house's order: imports go one way, and what needs no MindSpore does not import it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pangu_alpha

PACKAGE = Path(pangu_alpha.__file__).parent
ORDER = [
    "files",
    "config",
    "text",
    "data",
    "model",
    "parallel",
    "checkpoint",
    "training",
    "proof",
    "planner",
    "inference",
    "evaluation",
    "integrations",
    "cli",
]
WITHOUT_MINDSPORE = [
    "pangu_alpha",
    "pangu_alpha.files.lock",
    "pangu_alpha.files.reading",
    "pangu_alpha.files.writing",
    "pangu_alpha.files.shown",
    "pangu_alpha.files.paths",
    "pangu_alpha.cli.options",
    "pangu_alpha.config.run",
    "pangu_alpha.config.zoo",
    "pangu_alpha.text.punctuation",
    "pangu_alpha.text.tokenizer",
    "pangu_alpha.text.vocabulary",
    "pangu_alpha.text.corpora",
    "pangu_alpha.data.packing",
    "pangu_alpha.data.order",
    "pangu_alpha.data.position",
    "pangu_alpha.data.manifest",
    "pangu_alpha.data.preprocess",
    "pangu_alpha.checkpoint.native.store",
    "pangu_alpha.checkpoint.foreign.mindspore.released",
    "pangu_alpha.training.reporting.report",
    "pangu_alpha.inference.prompts",
    "pangu_alpha.inference.tasks",
    "pangu_alpha.inference.sampling",
    "pangu_alpha.config.parallel",
    "pangu_alpha.parallel.mesh",
    "pangu_alpha.cluster.tables.rank_table",
    "pangu_alpha.cluster.tables.build",
    "pangu_alpha.cluster.tables.check",
    "pangu_alpha.cluster.placement",
    "pangu_alpha.cluster.drawing",
    "pangu_alpha.parallel.sharding",
    "pangu_alpha.parallel.layout",
    "pangu_alpha.launcher.commands",
    "pangu_alpha.processes.signals",
    "pangu_alpha.processes.belonging",
    "pangu_alpha.launcher.watch",
    "pangu_alpha.planner.calibration.calibrate",
    "pangu_alpha.planner.operators.elimination",
    "pangu_alpha.planner.operators.block",
    "pangu_alpha.planner.operators.redistribution",
    "pangu_alpha.planner.operators.strategies",
    "pangu_alpha.planner.operators.patterns",
    "pangu_alpha.planner.operators.verify",
    "pangu_alpha.planner.operators.draw",
    "pangu_alpha.planner.search.search",
    "pangu_alpha.planner.search.stages",
    "pangu_alpha.planner.search.explain",
    "pangu_alpha.planner.search.closest_questions",
    "pangu_alpha.planner.search.placing",
    "pangu_alpha.planner.calibration.measured_runs",
    "pangu_alpha.planner.text_tables",
    "pangu_alpha.checkpoint.native.background",
    "pangu_alpha.checkpoint.moving.cleaning",
    "pangu_alpha.checkpoint.native.folders",
    "pangu_alpha.checkpoint.foreign.mindspore.mindformers_folder",
    "pangu_alpha.checkpoint.vocabulary",
    "pangu_alpha.checkpoint.native.distributed",
    "pangu_alpha.checkpoint.open",
    "pangu_alpha.checkpoint.moving.reading",
    "pangu_alpha.checkpoint.moving.reshard",
    "pangu_alpha.checkpoint.moving.copying",
    "pangu_alpha.checkpoint.foreign.mindspore.released_folder",
    "pangu_alpha.checkpoint.foreign.mindspore.ckpt_file",
    "pangu_alpha.checkpoint.foreign.mindspore.slices",
    "pangu_alpha.checkpoint.foreign.torch.huggingface",
    "pangu_alpha.checkpoint.foreign.torch.megatron",
    "pangu_alpha.checkpoint.foreign.torch.torch_file",
    "pangu_alpha.checkpoint.moving.export",
    "pangu_alpha.checkpoint.moving.compare",
    "pangu_alpha.cli.plan.search",
    "pangu_alpha.cli.plan.calibrate",
    "pangu_alpha.cli.merge_checkpoint",
    "pangu_alpha.cli.checkpoint",
    "pangu_alpha.planner.cost.collectives",
    "pangu_alpha.planner.cost.cost",
    "pangu_alpha.planner.cost.hardware",
    "pangu_alpha.planner.cost.job",
    "pangu_alpha.planner.cost.memory",
    "pangu_alpha.planner.calibration.published",
    "pangu_alpha.planner.cost.schedule",
    "pangu_alpha.planner.cost.shapes",
    "pangu_alpha.proof.dry_run.cann",
    "pangu_alpha.proof.dry_run.compile",
    "pangu_alpha.proof.checks.order",
    "pangu_alpha.proof.replay.compare",
    "pangu_alpha.proof.replay.slices",
    "pangu_alpha.proof.replay.suite",
    "pangu_alpha.proof.replay.replay",
    "pangu_alpha.proof.replay.continued",
    "pangu_alpha.proof.replay.training.replay",
    "pangu_alpha.proof.replay.training.small_run",
    "pangu_alpha.cli.train",
    "pangu_alpha.cli.rank_table",
    "pangu_alpha.cli.launch",
    "pangu_alpha.cli.launch.predict",
    "pangu_alpha.cli.plan",
    "pangu_alpha.cli.predict",
    "pangu_alpha.cli.preprocess",
    "pangu_alpha.cli.options",
    "pangu_alpha.cli.parser",
    "pangu_alpha.cli.vocab",
    "pangu_alpha.cli.fetch",
    "pangu_alpha.__main__",
    "pangu_alpha.files.paths",
    "pangu_alpha.files.yaml_text",
]
HEAVY = ("mindspore", "mindformers", "torch", "transformers", "tensorboardX")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_part_is_in_the_order():
    parts = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert parts == set(ORDER)


def test_imports_go_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0]
        if part not in ORDER:
            continue
        for name in imports(path):
            words = name.split(".")
            later = (
                words[0] == "pangu_alpha" and len(words) > 1 and words[1] in ORDER[ORDER.index(part) + 1 :]
            )
            if later:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_only_one_file_sets_a_context():
    calls = ("set_context(", "set_device(", "set_auto_parallel_context(")
    found = {
        str(p.relative_to(PACKAGE))
        for p in PACKAGE.rglob("*.py")
        if any(c in p.read_text("utf-8") for c in calls)
    }
    assert found == {"parallel/context.py"}


def test_light_modules_stay_light():
    code = f"""
import importlib, sys
for name in {WITHOUT_MINDSPORE!r}:
    importlib.import_module(name)
    heavy = [h for h in {HEAVY!r} if h in sys.modules]
    assert not heavy, (name, heavy)
from pangu_alpha import ModelConfig, PanguTokenizer, load_model_config, load_released
assert load_model_config("13b").num_layers == 40
assert not [h for h in {HEAVY!r} if h in sys.modules]
from pangu_alpha import PanguAlpha
assert "mindspore" in sys.modules and "mindformers" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names():
    assert set(pangu_alpha.__all__) <= set(dir(pangu_alpha))
    try:
        pangu_alpha.no_such_name  # noqa: B018
    except AttributeError as error:
        assert "no_such_name" in str(error)
    else:
        raise AssertionError("an unknown name must be an AttributeError")


def test_benchmarks_import_what_there_is():
    """By names alone: nothing runs them all, so a function that moved would be missed."""
    missing = []
    for path in sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pangu_alpha"):
                known = names_of(node.module)
                missing += [f"{path.name}: {node.module}.{a.name}" for a in node.names if a.name not in known]
    assert not missing


def names_of(module: str) -> set[str]:
    """All that can be imported from a module of ours, or that could not be looked for."""
    path = PACKAGE.parent / module.replace(".", "/")
    if path.is_dir():
        return {*names_in(path / "__init__.py")} | {each.stem for each in path.iterdir()}
    return {*names_in(path.with_suffix(".py"))}


def names_in(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
