"""What a user does on the page and sees there, for the page's tests."""

from __future__ import annotations

import time

SECONDS = 60  # for anything to appear; a crowded machine is slow


def until(true, seconds=SECONDS):
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def done(page):
    """Waits for the end of an answer."""
    page.locator("#stop").wait_for(state="hidden")
    page.locator(".card, #problem:not([hidden])").first.wait_for()


def write(page, text, wait=True):
    """Writes into the last field and lets the model go on."""
    page.locator("#form textarea").last.fill(text)
    page.click("#send")
    if wait:
        done(page)


def mode(page, name):
    """Chooses free, task or dialogue."""
    page.locator(f"#modes input[value={name}]").locator("..").click()


def choose(page, identity):
    """Chooses a task or a scenario."""
    page.locator(f"#choices input[value='{identity}']").locator("..").click()


def card_text(page, number=0):
    """The text of a sample."""
    return page.locator(".card .text").nth(number).inner_text() if page.locator(".card").count() else ""


def texts(page):
    """The texts of all samples."""
    return page.locator(".card .text").all_inner_texts()


def act(page, name, number=0):
    """Presses a button of a sample: more, use, copy or merge."""
    page.locator(".card").nth(number).locator(f"[data-action={name}]").click()


def set_range(page, name, value):
    """Moves a control of the sampling."""
    page.locator("#sampling").evaluate("details => (details.open = true)")
    page.locator(f"#{name}").fill(str(value))


def problem(page):
    """The error that the page words."""
    page.locator("#problem").wait_for()
    return page.locator("#problem p").inner_text()


def copied(page, button):
    """What a button of the page copies."""
    page.click(button)
    page.locator("#toast:not(:empty)").wait_for()
    return page.evaluate("navigator.clipboard.readText()")
