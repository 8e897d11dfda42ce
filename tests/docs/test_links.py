"""Links of the pages lead somewhere: to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_commands import ROOT
from page_reader import prose

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/*/*.md")])
PAGES = [page for page in PAGES if page.parts[-2] not in ("tests", "fixtures") and ".venv" not in page.parts]
_LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\(<?([^)\s>]+)>?\)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.M)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, by GitHub's rule: lower case, blanks to hyphens, no punctuation."""
    found: dict[str, int] = {}
    for heading in _HEADING.findall(prose(page.read_text("utf-8"))):
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found[name if name not in found else f"{name}-{found[name]}"] = 1
    return set(found)


def faults(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    text = re.sub(r"`[^`\n]*`", "", prose(page.read_text("utf-8")))
    lost = []
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue  # of the web: not followed
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists():
            lost.append(f"{target}: no such file")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            lost.append(f"{target}: no such heading")
    return lost


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_lead_somewhere(page):
    assert not faults(page)


def test_a_lost_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "# A b, c?\n[x](a.md#a-b-c) [x](#none) [x](b.md) `[x](c.md)`\n\n```text\n[x](d.md)\n```\n", "utf-8"
    )
    assert faults(page) == ["#none: no such heading", "b.md: no such file"]
