"""A browser, a stub server in a thread, and a page of it. All is skipped where one of them is missing."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import pangu_alpha

sys.path.insert(0, str(Path(__file__).parent))

from page_steps import SECONDS

PAGE = Path(pangu_alpha.__file__).parent / "serving" / "page"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
READY = (
    "#model:not(:empty), dialog[open], #problem:not([hidden]), #notice:not([hidden])"  # the page has begun
)


@contextmanager
def serving(application):
    """Serves an application on a free port of this machine, and yields its address."""
    uvicorn = pytest.importorskip("uvicorn")
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")  # while it is there, no other event loop can run in the process
def browser():
    """Debian's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip) for a browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def stub():
    """What the server does; a test changes it before or while the page is open."""
    pytest.importorskip("starlette", reason="needs starlette (pip) for a server")
    from page_stub import Stub

    return Stub()


@pytest.fixture
def address(stub):
    """Where the stub serves the page."""
    with serving(stub.application(PAGE)) as address:
        yield address


@pytest.fixture
def visit(browser):
    """Opens a page in a profile of its own. Complaints of the browser and requests elsewhere are faults."""
    contexts, complaints, elsewhere = [], [], []

    def visited(address, path="/", locale="zh-CN", width=1280, height=800, **options):
        context = browser.new_context(locale=locale, viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on("pageerror", lambda problem: complaints.append(str(problem)))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.on("request", lambda one: one.url.startswith(address) or elsewhere.append(one.url))
        page.goto(address + path)
        page.wait_for_selector(READY)
        return page

    yield visited
    for context in contexts:
        context.close()
    expected = "Failed to load resource"  # a refusal that the test asked for
    assert not [line for line in complaints if expected not in line]
    assert not elsewhere


@pytest.fixture
def open_page(visit, address):
    """Opens the stub's page."""
    return partial(visit, address)
