"""The house's contract: imports go one way, packages are entered by what they name, there are no circles,
no folder is crowded, and only the modules listed here load MindSpore when they are imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pangu_alpha

PACKAGE = Path(pangu_alpha.__file__).parent
# From top to bottom: a package imports only from those above it. Packages of one line are siblings, which
# never import each other.
LAYERS = [
    ("files",),
    ("processes",),
    ("config",),
    ("text",),
    ("corpus",),
    ("data",),
    ("network",),
    ("model",),
    ("parallel",),
    ("cluster",),
    ("checkpoint",),
    ("training",),
    ("inference",),
    ("proof",),
    ("planner",),
    ("evaluation", "tuning", "compression", "serving"),
    ("integrations",),
    ("launcher",),
    ("cluster_check",),
    ("cli",),
]
# What may load MindSpore, torch or another heavy library when it is imported; everything else starts fast and
# works where they are not installed.
HEAVY = ("mindspore", "mindformers", "torch", "transformers", "tensorboardX")
MAY_LOAD_MINDSPORE = (
    "model",
    "parallel.apply",
    "parallel.context",
    "parallel.reductions",
    "parallel.world",
    "training.checks",
    "training.engine",
    "training.loop",
    "training.loss",
    "training.optimizer",
    "training.hooks.standard",
    "training.objectives",
    "training.partitioned",
    "training.tokens",
    "training.step",
    "training.validation",
    "inference.caches",
    "inference.decoder",
    "inference.forward",
    "inference.generate",
    "inference.load",
    "inference.nats",
    "inference.text",
    "evaluation.corpora.networks",
    "evaluation.perplexity",
    "evaluation.scoring",
    "proof.dry_run.engine",
    "proof.replay.training.engine",
    "serving.engine.loaded",
    "cluster_check.measure",
    "integrations.lm_eval",
    "integrations.lm_eval_tasks.catalog_task",
    "integrations.lm_eval_tasks.figures",
    "integrations.mindformers",
)
MOST_MODULES = 14  # of a folder


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below pangu_alpha."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        words = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports: a module's where there is one, else that of the module it is in."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner.removeprefix("pangu_alpha.") in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_imports(name: str) -> set[str]:
    """Modules of the package that a module imports."""
    found = {each.removeprefix("pangu_alpha.") for each in imports(MODULES[name])}
    return (found & MODULES.keys()) - {name, ""}


def layer(name: str) -> int | None:
    """Number of the layer of a module; None of those above all packages."""
    first = name.split(".")[0]
    return next((number for number, layer in enumerate(LAYERS) if first in layer), None)


def test_every_package_is_in_a_layer():
    parts = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert parts <= {name for names in LAYERS for name in names}


def test_imports_go_one_way():
    wrong = []
    for name in MODULES:
        own, first = layer(name), name.split(".")[0]
        for other in own_imports(name) if own is not None else ():
            theirs = layer(other)
            if theirs is None or theirs > own or (theirs == own and other.split(".")[0] != first):
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_there_are_no_circles():
    """Imports inside functions count, too: they would only hide a circle."""
    left = {name: own_imports(name) for name in MODULES if "__main__" not in name}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"in circles or behind them: {sorted(left)}"


def named(package: str) -> set[str]:
    """What a package's __init__ names in __all__."""
    for node in ast.parse(MODULES[package].read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_packages_are_entered_by_what_they_name():
    wrong = []
    for name, path in MODULES.items():
        inside = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for other in own_imports(name):
            words = other.split(".")
            for depth in range(1, len(words)):
                package = words[:depth]
                if inside[:depth] != package and words[depth] not in named(".".join(package)):
                    wrong.append(f"{name} imports {other}: not in __all__ of {'.'.join(package)}")
    assert not wrong


def test_what_packages_name_is_there():
    missing = [
        f"{package}: {name}"
        for package, path in MODULES.items()
        if package and path.name == "__init__.py"
        for name in named(package)
        if f"{package}.{name}" not in MODULES and name not in names_in(path)
    ]
    assert not missing


def test_no_folder_is_crowded():
    folders = {path.parent for path in MODULES.values()}
    crowded = {
        str(folder): count for folder in folders if (count := len([*folder.glob("*.py")])) > MOST_MODULES
    }
    assert not crowded


def test_only_one_file_sets_a_context():
    calls = ("set_context(", "set_device(", "set_auto_parallel_context(")
    found = {
        str(p.relative_to(PACKAGE))
        for p in PACKAGE.rglob("*.py")
        if any(c in p.read_text("utf-8") for c in calls)
    }
    assert found == {"parallel/context.py"}


def may_load_mindspore(name: str) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in MAY_LOAD_MINDSPORE)


def test_only_listed_modules_load_mindspore():
    """All others are imported by one process, in which nothing heavy is loaded then."""
    light = [name for name in MODULES if name and not may_load_mindspore(name) and "__main__" not in name]
    code = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module("pangu_alpha." + name)
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


def test_the_list_names_no_module_that_is_gone():
    assert not [each for each in MAY_LOAD_MINDSPORE if each not in MODULES]


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
