"""An entry of an Args section names a real argument or field, and says what its name and type do not.

No entry is obligatory: an argument that its name and annotation explain needs none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "pangu_alpha"

# Words that tell a reader nothing by themselves: grammar first, then the things that nearly every argument
# of this package is about. "Of the table." and "The network's shape." consist of nothing else.
FILLER = """
    a an the this that these those it its he his they their theirs them s own
    of to for in on at by from with as and or
    is are was were be been has have had does do
    which what who whose whom where
    all whole given said each see here there such same other
    table network model shape plan run config configuration thing object instance argument
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _arguments(node: Function) -> dict[str, str]:
    """Each argument's annotation as it is written, empty where it has none."""
    named = node.args
    rest = [arg for arg in (named.vararg, named.kwarg) if arg]
    arguments = [*named.posonlyargs, *named.args, *named.kwonlyargs, *rest]
    return {arg.arg: ast.unparse(arg.annotation) if arg.annotation else "" for arg in arguments}


def _fields(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> dict[str, str]:
    """Fields and arguments of __init__, of a class and of its bases in `classes`, with their annotations."""
    fields: dict[str, str] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes and classes[base.id] is not node:
            fields |= _fields(classes[base.id], classes)
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            fields[each.target.id] = ast.unparse(each.annotation)
        elif isinstance(each, ast.FunctionDef) and each.name == "__init__":
            fields |= _arguments(each)
    return fields


def _entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Name and text of each entry of a docstring's Args section; an entry may have several names."""
    _, _, rest = docstring.partition("Args:\n")
    section = re.match(r"(?: {4}.*\n?|\n)*", rest)[0]
    for names, text in re.findall(
        r"^ {4}([\w*][\w*, ]*?)(?: \([^)]*\))?:(.*(?:\n(?: {5,}.*)?)*)", section, re.M
    ):
        yield from ((name.lstrip("*"), text) for name in names.split(", "))


def _words(text: str) -> set[str]:
    """The words of a text in lower case without plural s; names_like_this and LikeThis are taken apart."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("_", " ").lower()
    return {word.removesuffix("s") or word for word in re.findall(r"[a-z0-9]+", apart)}


def _has_symbol(name: str, annotation: str, text: str) -> bool:
    """Whether a text has a shape letter, or code in backquotes or parentheses besides name and annotation."""
    code = {span.strip("`()") for span in re.findall(r"`[^`]+`|\([^)]+\)", text)}
    return bool(code - {name, annotation} or re.search(r"\b[B-HJ-Z]\b", text))


def _is_empty(name: str, annotation: str, text: str) -> bool:
    """Whether an entry's text has no word besides those of its name, its annotation and the filler words."""
    words = _words(text) - _words(name) - _words(annotation) - _words(FILLER)
    return not words and not _has_symbol(name, annotation, text)


def _nodes(tree: ast.Module) -> Iterator[ast.ClassDef | Function]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return (node for node in ast.walk(tree) if isinstance(node, kinds))


def _faults(path: Path, classes: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    for node in _nodes(_tree(path)):
        known = _fields(node, classes) if isinstance(node, ast.ClassDef) else _arguments(node)
        for name, text in _entries(ast.get_docstring(node) or ""):
            place = f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.name}: {name}"
            if name not in known:
                yield f"{place}: no such argument"
            elif _is_empty(name, known[name], text):
                yield f"{place}: {' '.join(text.split())!r} says no more than name and type"


def _package_faults() -> list[str]:
    every = sorted(PACKAGE.rglob("*.py"))
    classes = {
        node.name: node for path in every for node in _nodes(_tree(path)) if isinstance(node, ast.ClassDef)
    }
    return [fault for path in every for fault in _faults(path, classes)]


def test_entries_name_arguments_and_say_something():
    faults = _package_faults()
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("name", "annotation", "text"),
    [
        ("rows", "list[Row]", "Of the table."),
        ("plan", "Plan", "The plan."),
        ("plan", "Plan", "Theirs."),
        ("model", "ModelConfig", "The network's shape."),
        ("host_names", "list[str]", "The hosts' names."),
        ("links", "Links", "Of it."),
        ("device", "DeviceType", "The type of the device."),
        ("source", "Checkpoint", "The checkpoint."),
        ("config", "ModelConfig", "A `ModelConfig`."),
        ("seed", "int", "Seed of the run."),
        ("path", "Path", ""),
    ],
)
def test_empty_entries(name, annotation, text):
    assert _is_empty(name, annotation, text)


@pytest.mark.parametrize(
    ("name", "annotation", "text"),
    [
        ("rows", "np.ndarray", "int64 [B]."),
        ("rows", "list[Row]", "In the order of their ids."),
        ("plan", "Plan | None", "None reads every tensor whole."),
        ("model", "ModelConfig", "Changed in place."),
        ("timeout", "float", "Seconds."),
        ("folder", "Path", "Must not exist yet."),
        ("step", "int", "Counted from 0."),
        ("seq_length", "int", "S."),
        ("phase", "str", "See `phase_of`."),
    ],
)
def test_entries_with_information(name, annotation, text):
    assert not _is_empty(name, annotation, text)


def _write(folder: Path, text: str) -> None:
    (folder / "room").mkdir()
    (folder / "room" / "a.py").write_text(text)


def _class(entry: str) -> str:
    return (
        f'class A(NamedTuple):\n    """A.\n\n    Args:\n        {entry}\n    """\n\n    x: int\n    y: int\n'
    )


def _private_function(entry: str) -> str:
    return f'def _f(x: int, *y: int) -> int:\n    """F.\n\n    Args:\n        {entry}\n    """\n'


def _method(entry: str) -> str:
    entry = entry.replace("\n", "\n    ")
    documented = f'        """F.\n\n        Args:\n            {entry}\n        """\n'
    return f"class A:\n    def f(self, x, y):\n{documented}"


def _derived_class(entry: str) -> str:
    return (
        "class Base:\n    def __init__(self, x: int, y: int) -> None: ...\n\n"
        f'class A(Base):\n    """A.\n\n    Args:\n        {entry}\n    """\n'
    )


@pytest.mark.parametrize("made", [_class, _private_function, _method, _derived_class])
@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("x: Seconds.", None),
        ("x, y: Seconds.", None),
        ("y (int): Of all,\n            in seconds.", None),
        ("z: Seconds.", "z: no such argument"),
        ("x, z: Seconds.", "z: no such argument"),
        ("y: Of the\n            table.", "y: 'Of the table.' says no more than name and type"),
    ],
)
def test_a_fault_is_found(made, entry, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    _write(tmp_path, made(entry))
    faults = _package_faults()
    assert [each.partition(": ")[2].partition(": ")[2] for each in faults] == ([fault] if fault else [])
