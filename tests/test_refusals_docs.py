"""docs/refusals.md quotes messages that the source holds, and its Chinese page quotes the same ones."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = {name: (ROOT / "docs" / name).read_text("utf-8") for name in ("refusals.md", "refusals_zh.md")}
SECTIONS = {
    "Text and corpora": "文本与语料",
    "Vocabulary": "词表",
    "Configuration and command lines": "配置与命令行",
    "Training and resuming": "训练与续训",
    "Launching and signals": "启动与信号",
    "Checkpoints: opening": "检查点：打开",
    "Checkpoints: writing, merging, exporting, cleaning": "检查点：写入、合并、导出与清理",
    "Rank tables and hosts files": "rank table 与主机列表",
    "Planner and plan.py": "规划器与 plan.py",
    "Generation and evaluation": "生成与评测",
}
HOLE = "\0"  # stands for what a message fills in
PLACEHOLDER = re.compile(r"…|\b(?:[NMX]|FILE|FOLDER|PATH|NAMES?|KEY|HOST|TIME|CKPT|SRC|DST)\b(?!-)")
SHORTEST = 12  # characters of a piece that is looked for: a shorter one may occur by chance


def string_of(node: ast.expr) -> str | None:
    """The text of a literal, with holes where values are filled in; None for other expressions."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [string_of(node.left), string_of(node.right)]
        return None if parts == [None, None] else "".join(HOLE if part is None else part for part in parts)
    return None


def literals(text: str) -> list[str]:
    """All strings of a module but its docstrings, which no user is shown."""
    tree = ast.parse(text)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = (
        string_of(node) for node in ast.walk(tree) if isinstance(node, ast.expr) and id(node) not in alone
    )
    return [re.sub(r"%[sdr]", HOLE, text) for text in strings if text]


@cache
def source() -> str:
    """What programs and scripts may print."""
    modules = [path.read_text("utf-8") for path in sorted((ROOT / "src").rglob("*.py"))]
    scripts = [path.read_text("utf-8") for path in sorted((ROOT / "run_scripts").glob("*.sh"))]
    return HOLE.join([text for module in modules for text in literals(module)] + scripts)


def rows(page: str) -> list[tuple[str, list[str]]]:
    """Sections of a page with the messages of each row, as code shows them."""
    cells = []
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        table = re.findall(r"^\| (.*) \|$", body, re.MULTILINE)[2:]
        cells += [(title, row.split(" | ")[0]) for row in table]
    return [(title, re.findall(r"`([^`]+)`", cell)) for title, cell in cells]


def pieces(message: str) -> list[str]:
    """The fixed words of a message, without pieces too short to tell anything; at least the longest."""
    parts = [part.strip(" '\",.:;()") for part in PLACEHOLDER.split(message)]
    longest = max(map(len, parts))
    return [part for part in parts if part and len(part) >= min(SHORTEST, longest)]


MESSAGES = [message for _, messages in rows(PAGES["refusals.md"]) for message in messages]


def test_the_page_has_messages():
    assert len(MESSAGES) > 150 and len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_words_of_a_message_are_in_the_source(message):
    assert pieces(message), "no fixed words"
    assert [part for part in pieces(message) if part not in source()] == []


def test_a_message_that_no_program_gives_is_seen():
    assert [part for part in pieces("FILE: the moon is not in the right place") if part in source()] == []


def test_both_pages_have_the_same_sections_and_messages():
    english, chinese = (rows(page) for page in PAGES.values())
    assert [(SECTIONS[title], messages) for title, messages in english] == chinese
    assert list(dict.fromkeys(title for title, _ in english)) == list(SECTIONS)


def test_literals_are_joined_and_docstrings_left_out():
    text = 'def f(x):\n    """Doc."""\n    return f"a {x} b" " c" + x + "d %s"\n'
    assert f"a {HOLE} b c{HOLE}d {HOLE}" in literals(text) and "Doc." not in literals(text)
