"""The page on the real server, whose engine has no network: both sides keep to one wire."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.request

import pytest
from page_steps import act, card_text, choose, copied, done, mode, problem, set_range, texts, until, write

from pangu_alpha.inference.tasks import TASKS

pytestmark = pytest.mark.long  # minutes in all


@pytest.fixture
def opened(visit, start):
    """Starts a server with options and opens its page."""

    def go(*options, wait=True, **context):
        server = start(*options, wait=wait)
        return server, visit(server.url, **context)

    return go


def running(server):
    """Requests that the engine is working on."""
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as answer:
        found = re.search(r"^pangu:num_requests_running\S* (\S+)$", answer.read().decode(), re.M)
    return int(float(found[1]))


def answered(page):
    """Waits for an answer that is no error."""
    done(page)
    assert page.locator("#problem").is_hidden(), problem(page)
    assert page.locator(".card").count() >= 1


def test_text_streams_stop_frees_the_slot_and_continue_goes_on(opened):
    server, page = opened("--delay", 0.1)
    write(page, "却说曹操", wait=False)
    until(lambda: len(card_text(page)) >= 3)
    assert running(server) == 1
    page.click("#stop")
    until(lambda: running(server) == 0)
    done(page)
    kept = card_text(page)
    act(page, "more")
    until(lambda: len(card_text(page)) > len(kept))
    assert card_text(page).startswith(kept)


def test_every_task_and_every_scenario_answers(opened):
    _, page = opened("--delay", 0, "--random", "--context", 512)
    seen = []
    for kind in ("task", "dialogue"):
        mode(page, kind)
        for one in [radio.get_attribute("value") for radio in page.locator("#choices input").all()]:
            choose(page, one)
            set_range(page, "max_tokens", 8)
            page.locator(".try").first.click()
            answered(page)
            seen.append(one)
    assert {*TASKS, ""} < {*seen} and len(seen) >= len(TASKS) + 4


def test_samples_and_tokens_of_the_real_wire(opened):
    _, page = opened("--delay", 0, "--random")
    set_range(page, "n", 3)
    set_range(page, "max_tokens", 20)
    page.fill("#seed", "11")
    write(page, "中国")
    answered(page)
    first = texts(page)
    assert len({*first}) == 3
    page.click("#again")
    answered(page)
    assert texts(page) == first  # the seed is locked
    page.check("#probabilities")
    tokens = page.locator(".card").nth(1).locator(".token")
    assert "".join(token.text_content() for token in tokens.all()) == first[1]
    tokens.nth(3).click()
    rows = page.locator("#alternatives .other")
    assert rows.count() in (5, 6)
    words = rows.locator(".word").all_inner_texts()
    assert len({*words}) == len(words)
    kept = "".join(token.text_content() for token in tokens.all()[:3])
    free = page.locator("#alternatives .other:not([disabled], [aria-current])").all()
    row = next(row for row in free if not re.match("[␣↵]", row.locator(".word").inner_text()))
    text = row.locator(".word").inner_text()
    row.click()
    answered(page)
    assert card_text(page, 1).startswith(kept + text)
    assert [text for place, text in enumerate(texts(page)) if place != 1] == [first[0], first[2]]


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_copied_command_answers_as_the_page_did(opened):
    _, page = opened("--delay", 0, "--random")
    mode(page, "task")
    choose(page, "couplet")
    page.fill("#seed", "5")
    set_range(page, "max_tokens", 12)
    page.click(".try")
    answered(page)
    done_by_hand = subprocess.run(["bash", "-c", copied(page, "#curl")], capture_output=True, timeout=60)
    assert json.loads(done_by_hand.stdout)["choices"][0]["text"] == card_text(page)


def test_a_full_queue_and_a_long_text_are_worded(opened):
    server, page = opened("--delay", 0.2, "--queue", 0, "--slots", 1, "--random")
    other = json.dumps({"prompt": "却说", "max_tokens": 60, "model": "pangu"}).encode()
    request = urllib.request.Request(
        server.url + "/v1/completions", other, {"Content-Type": "application/json"}, method="POST"
    )
    thread = threading.Thread(target=lambda: urllib.request.urlopen(request, timeout=300).read())
    thread.start()
    until(lambda: running(server) == 1)
    write(page, "却说曹操")
    assert re.fullmatch(r"排队的人太多，请在 \d+ 秒后再试。", problem(page))
    thread.join()
    write(page, "中" * 200)
    assert re.fullmatch(r"太长了：已有 \d+ 个词元，还要写 128 个，比上限 \d+ 多了 \d+ 个。", problem(page))


def test_a_loading_server_is_said_and_the_page_goes_on_by_itself(opened):
    _, page = opened("--delay", 0, "--load", 6, wait=False)
    assert page.locator("#notice").inner_text() == "模型正在载入，请稍候，本页会自己继续。"
    page.locator("#notice").wait_for(state="hidden")
    page.locator("#model:not(:empty)").wait_for()
    write(page, "却说曹操")
    answered(page)


def test_with_keys_the_browser_asks_once_for_page_and_wire(opened, tmp_path):
    from tests.serving.running import digest

    file = tmp_path / "keys"
    file.write_text(f"reader:{digest('sk-test')}\n")
    file.chmod(0o600)
    credentials = {"username": "anybody", "password": "sk-test"}
    _, page = opened("--key-file", file, "--delay", 0, http_credentials=credentials)
    write(page, "却说曹操")
    answered(page)
    assert page.locator("#asking").is_hidden()
