"""The page's limits, its safety, and how it looks: on phones and desktops, light and dark, for everybody."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from pathlib import Path

import pytest
from page_steps import card_text, choose, done, mode, set_range, write

import pangu_alpha

pytestmark = pytest.mark.slow
PAGE = Path(pangu_alpha.__file__).parent / "serving" / "page"
ROOT = Path(__file__).parents[3]
AXE = "axe-core-4.14.1.tgz"  # npm pack axe-core@4.14.1 --pack-destination data
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
WIDTHS = (360, 1280)
SCHEMES = ("light", "dark")
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>&lt;"


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core, which is not part of the repository."""
    archive = Path(os.environ.get("PANGU_AXE_CORE", ROOT / "data" / AXE))
    if not archive.is_file():
        pytest.skip("needs axe-core: npm pack axe-core@4.14.1 --pack-destination data")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == AXE_SHA256, f"{archive} is not axe-core 4.14.1"
    with tarfile.open(archive) as packed:
        return packed.extractfile("package/axe.min.js").read().decode()


def test_the_page_is_small_and_has_no_address_in_it():
    files = sorted(PAGE.iterdir())
    texts = {path.name: path.read_text("utf-8") for path in files}
    assert len(files) <= 6 and {path.suffix for path in files} <= {".html", ".js", ".css"}
    assert sum(text.count("\n") for text in texts.values()) <= 1000
    assert sum(path.stat().st_size for path in files) <= 60_000
    assert max(text.count("\n") for text in texts.values()) <= 400
    for name, text in texts.items():
        assert not re.search(
            r"https?:|//[a-z]|\burl\(|@import|@font-face",
            re.sub(r"^\s*//.*|[;,{] // .*", "", text, flags=re.M),
        ), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|style=|document\.cookie", text
        ), name


@pytest.mark.parametrize("where", ["free", "tokens", "dialogue", "turns"])
def test_markup_in_a_model_s_text_stays_text(open_page, stub, where):
    stub.text = HOSTILE
    page = open_page()
    if where in ("dialogue", "turns"):
        mode(page, "dialogue")
        page.fill("#field-turn", HOSTILE)
        page.click("#send")
        done(page)
    else:
        write(page, HOSTILE)
    if where == "tokens":
        page.check("#probabilities")
        page.locator(".token").first.click()
        page.keyboard.press("Escape")
    if where == "turns":
        page.fill("#field-turn", "再说")
        page.click("#send")
        done(page)
    assert card_text(page) == HOSTILE
    assert page.title() == "盘古 α" and page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(open_page, stub, width, scheme, tmp_path):
    page = open_page(width=width, color_scheme=scheme)
    set_range(page, "n", 3)
    stub.text = "长" * 60 + "Donaudampfschifffahrtsgesellschaftskapitän" * 2
    for choice in ("free", "task", "dialogue"):
        mode(page, choice)
        if choice == "task":
            choose(page, "passage_question")
        page.locator(".try").last.click()
        done(page)
        page.check("#probabilities")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.locator(".token").nth(5).click()
        box = page.locator("#alternatives").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        page.keyboard.press("Escape")
    picture = tmp_path / "page.png"
    page.screenshot(path=picture)
    assert picture.stat().st_size > 10_000
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 243, 236)"
    assert light == (scheme == "light")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing(open_page, stub, axe, width, scheme):
    page = open_page(
        width=width, color_scheme=scheme, locale="zh-CN" if scheme == "light" else "en-US", bypass_csp=True
    )

    def check(what):
        found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        problems = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
        assert problems == [], what

    page.evaluate(axe)
    check("nothing written yet")
    for choice in ("task", "dialogue", "free"):
        mode(page, choice)
        page.locator(".try").first.click()
        done(page)
        check(choice)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.check("#probabilities")
    check("tokens and settings")
    page.locator(".token").nth(2).click()
    check("alternatives")
    page.keyboard.press("Escape")
    stub.key = "sk"
    page.click("#again")
    page.locator("#asking").wait_for()
    check("key")
    page.keyboard.press("Escape")
    page.locator("#problem").wait_for()
    check("problem")


def test_everything_is_reached_by_the_keyboard_and_stop_follows_send(open_page, stub):
    stub.delay = 0.02
    page = open_page()
    page.fill("#field-prompt", "却说曹操")
    page.focus("#send")
    page.keyboard.press("Enter")
    page.locator("#stop").wait_for()
    assert page.evaluate("document.activeElement.id") == "stop"
    page.keyboard.press("Enter")
    done(page)
    assert page.evaluate("document.activeElement.id") == "send"
    page.focus("#language")
    seen = {"language"}
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {
        "language",
        "mode",
        "field-prompt",
        "send",
        "again",
        "undo",
        "probabilities",
        "curl",
        "share",
        "temperature",
        "seed",
    } <= seen
