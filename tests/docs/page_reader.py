"""Reads a page of Markdown: its blocks of code in order, and the commands, files and outputs in them.

Knows fenced blocks (`bash`, `yaml` whose first line is `# file: NAME`, `python`, `text` for output) and
indented ones, in which `$ ` stands before a command and its output below it. A comment in front of a block,
`<!-- not run by the tests: WHY -->` or `<!-- tests/FILE.py runs this block -->`, says why it is not run here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

HEADS = ("python", "python3", "bash", "pangu-alpha", "pip", "git", "make", "pytest", "source", "cat", "mkdir")
_FENCE = re.compile(r"( *)(`{3,}|~{3,})\s*([\w+-]*)")
_HERE = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_FILE = re.compile(r"#\s*file:\s*(\S+)\s*$")
_SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_NOT_RUN = re.compile(r"<!--\s*(?:not run by the tests: (.+?)|(tests/\S+\.py runs .+?))\s*-->")
_BACKGROUND = re.compile(r"(?<!&)&[ \t]*$", re.M)
_SHELLS = ("bash", "sh", "shell", "console")


@dataclass(frozen=True)
class Block:
    """A block of code: its language ("" if none is given), the line of its first word, its text.

    reason says why a test shall not run it, "" if it shall.
    """

    language: str
    line: int
    text: str
    reason: str = ""


@dataclass
class Step:
    """What a reader does at one place of a page: kind is `command`, `file` or `python`.

    name is that of a file; output is what the page shows beneath a command, "" where it shows nothing: of all
    commands of its block, where that has no `$ `; block is the block's line, reason that of its comment.
    """

    kind: str
    line: int
    text: str
    name: str = ""
    output: str = ""
    reason: str = ""
    block: int = 0


def blocks(text: str) -> Iterator[Block]:
    """All blocks of code of a page, fenced or indented by four spaces."""
    lines = text.split("\n")
    at, blank = 0, True
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence:
            end = _closing(lines, at + 1, fence[2])
            inner = [line[len(fence[1]) :] for line in lines[at + 1 : end]]
            yield Block(fence[3].lower(), at + 2, "\n".join(inner), _reason(lines[:at]))
            at, blank = end + 1, True
        elif blank and lines[at].startswith("    "):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            inner = "\n".join(line[4:] for line in lines[at:end]).rstrip()
            yield Block(_language_of(inner), at + 1, inner, _reason(lines[:at]))
            at, blank = end, True
        else:
            blank = not lines[at].strip()
            at += 1


def _reason(before: list[str]) -> str:
    """Of the comment that stands in front of a block, perhaps with a blank line between them."""
    lines = [line.strip() for line in before[-2:] if line.strip()]
    found = _NOT_RUN.fullmatch(lines[-1]) if lines else None
    return (found[1] or found[2]) if found else ""


def _closing(lines: list[str], at: int, fence: str) -> int:
    while at < len(lines) and not lines[at].strip().startswith(fence):
        at += 1
    return at


def _language_of(text: str) -> str:
    """Of an indented block, which does not say it."""
    first = text.split(None, 1)[0] if text.strip() else ""
    return "bash" if first in (*HEADS, "$") else "text"


def prose(text: str) -> str:
    """A page without its blocks of code; line numbers stay."""
    lines = text.split("\n")
    for block in blocks(text):
        for at in range(block.line - 1, block.line - 1 + block.text.count("\n") + 1):
            lines[at] = ""
    return "\n".join(lines)


def spans(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of the code spans in a page's prose."""
    body = prose(text)
    for found in _SPAN.finditer(body):
        yield body.count("\n", 0, found.start()) + 1, " ".join(found[1].split())


def steps(text: str) -> Iterator[Step]:
    """All commands, files and programs of a page in order."""
    last = None  # the command whose output may follow
    for block in blocks(text):
        if block.language in _SHELLS:
            found = list(_commands(block))
            yield from found
            last = found[-1] if found else None
        elif block.language == "text" or not block.language:
            if last is not None and not last.output:
                last.output = block.text
            last = None
        elif named := _FILE.match(block.text.split("\n", 1)[0]):
            yield Step("file", block.line, block.text + "\n", named[1])
        elif block.language == "python":
            yield Step("python", block.line, block.text, reason=block.reason, block=block.line)


def _commands(block: Block) -> Iterator[Step]:
    """The commands of a shell's block; where one begins with `$ `, all other lines are output."""
    if _BACKGROUND.search(block.text):  # what follows is about that process: one shell for all of it
        yield Step(
            "command", block.line, _without_comment(block.text).strip(), reason=block.reason, block=block.line
        )
        return
    lines = block.text.split("\n")
    prompted = any(line.startswith("$ ") for line in lines)
    at, step = 0, None
    while at < len(lines):
        line = lines[at]
        if prompted and not line.startswith("$ "):
            if step is not None:
                step.output += line + "\n"
            at += 1
            continue
        end = _end(lines, at)
        command = _without_comment("\n".join(lines[at:end]).removeprefix("$ "))
        if command.strip():
            step = Step("command", block.line + at, command.strip(), reason=block.reason, block=block.line)
            yield step
        at = end


def _end(lines: list[str], at: int) -> int:
    """Where the command of a line ends: behind continuations, open quotes, here-documents, loops."""
    end = at + 1
    while end < len(lines) and _open("\n".join(lines[at:end])):
        end += 1
    here = _HERE.search(_without_comment("\n".join(lines[at:end])))
    while here and end < len(lines) and lines[end].strip() != here[2]:
        end += 1
    return end + 1 if here else end


def _open(text: str) -> bool:
    bare = _without_comment(text)
    if bare.rstrip(" ").endswith("\\"):
        return True
    try:
        words = shlex.split(bare)
    except ValueError:
        return True
    return "do" in words and not {"done", "done;"} & set(words)


def _without_comment(text: str) -> str:
    """A command without comments; a here-document stays as it is."""
    quote, kept, at = "", [], 0
    while at < len(text):
        character = text[at]
        if not quote and character == "#" and (at == 0 or text[at - 1] in " \t\n"):
            at = text.find("\n", at)
            if at < 0:
                break
            continue
        if character == "\\" and quote != "'":
            kept.append(text[at : at + 2])
            at += 2
            continue
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
        if not quote and text.startswith("<<", at) and "\n" in text[at:]:
            return "".join(kept) + text[at:]
        kept.append(character)
        at += 1
    return "".join(kept).rstrip(" ")
