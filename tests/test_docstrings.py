"""Public dataclasses, named tuples and cells document all their fields or arguments, and no others.

Fields of a configuration carry their help text themselves, and sections of it are documented by their class.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "pangu_alpha"


def _arguments(node: ast.ClassDef) -> list[str]:
    """What making one takes: arguments of __init__, or fields of a dataclass or named tuple."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            named = each.args
            return [arg.arg for arg in (*named.posonlyargs, *named.args, *named.kwonlyargs)][1:]
    marks = " ".join(map(ast.unparse, (*node.decorator_list, *node.bases)))
    annotated = [
        each
        for each in node.body
        if isinstance(each, ast.AnnAssign) and not ast.unparse(each.annotation).startswith("ClassVar")
    ]
    calls = [_called(each) for each in annotated]
    left_out = ("option", "section") if "option" in calls else ()
    fields = (each.target.id for each, call in zip(annotated, calls, strict=True) if call not in left_out)
    return [*fields] if "dataclass" in marks or "NamedTuple" in marks else []


def _called(field: ast.AnnAssign) -> str | None:
    """ "option" of a field that carries its help, "section" of one whose class is its help."""
    if field.value is not None and ast.unparse(field.value).startswith("option("):
        return "option"
    section = f"field(default_factory={ast.unparse(field.annotation)})"
    return "section" if field.value is not None and ast.unparse(field.value) == section else None


def _documented(node: ast.ClassDef) -> list[str]:
    _, _, rest = (ast.get_docstring(node) or "").partition("Args:\n")
    section = re.match(r"(?: {4}.*\n?)*", rest)[0]
    names = re.findall(r"^ {4}(\w[\w, ]*?)(?: \([^)]*\))?:", section, re.M)
    return [name for words in names for name in words.split(", ")]


def _faults(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            taken, said = set(_arguments(node)), set(_documented(node))
            if taken != said:
                differ = ", ".join(sorted(taken ^ said))
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.name}: {differ}"


def test_args_are_the_fields():
    faults = [fault for path in sorted(PACKAGE.rglob("*.py")) for fault in _faults(path)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("args", "differ"), [("x: Of it.\n        y: Of it.", ""), ("x: Of it.\n        z: Of it.", "y, z")]
)
def test_a_fault_is_found(args, differ, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    text = (
        f'class A(NamedTuple):\n    """A.\n\n    Args:\n        {args}\n    """\n\n    x: int\n    y: int\n'
    )
    (tmp_path / "a.py").write_text(text)
    assert list(_faults(tmp_path / "a.py")) == ([f"a.py:1: A: {differ}"] if differ else [])
