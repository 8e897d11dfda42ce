"""What can be taken away from the page and found again: copies, links, history, the language."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import types

import pytest
from page_steps import card_text, choose, copied, done, mode, set_range, texts, until, write

pytestmark = pytest.mark.slow
QUOTED = 'it\'s "曹操"\n$HOME `x` \\n'


def test_text_is_copied(open_page, stub):
    page = open_page()
    write(page, "却说曹操")
    assert copied(page, "[data-action=copy]") == stub.text


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_copied_curl_command_sends_what_the_page_sent(open_page, stub):
    page = open_page()
    write(page, QUOTED)
    command = copied(page, "#curl")
    run = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60)
    sent, again = stub.bodies()[0], stub.bodies()[-1]
    assert run.returncode == 0, run.stderr
    assert len(stub.bodies()) == 2 and again["prompt"] == QUOTED
    assert again.items() <= sent.items()


def python_call(code):
    """Runs copied Python with a client that records the call; returns the client's options and the call's."""
    calls = []

    class OpenAI:
        def __init__(self, **options):
            self.options = options
            self.completions = types.SimpleNamespace(create=self.create)
            self.chat = types.SimpleNamespace(completions=self.completions)

        def create(self, **options):
            calls.append((self.options, options))
            return types.SimpleNamespace(choices=[])

    made = types.ModuleType("openai")
    made.OpenAI = OpenAI
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openai", made)
        exec(compile(code, "copied.py", "exec"), {})
    return calls[0]


def test_the_copied_python_asks_for_the_same(open_page, stub, address):
    page = open_page()
    page.fill("#field-prompt", QUOTED)
    client, call = python_call(copied(page, "#python"))
    assert client == {"base_url": address + "/v1", "api_key": "none"}
    assert call["prompt"] == QUOTED and call["model"] == "pangu" and call["extra_body"] == {"top_k": 0}
    mode(page, "task")
    choose(page, "couplet")
    page.fill("#field-first", "春风")
    call = python_call(copied(page, "#python"))[1]
    assert call["prompt"] is None
    assert call["extra_body"]["task"] == "couplet" and call["extra_body"]["fields"] == {"first": "春风"}
    mode(page, "dialogue")
    page.fill("#field-turn", "你好")
    page.click("#send")
    done(page)
    assert python_call(copied(page, "#python"))[1]["messages"] == [{"role": "user", "content": "你好"}]


def test_copies_name_the_key_and_do_not_hold_it(open_page, stub):
    page = open_page()
    page.evaluate("sessionStorage.setItem('pangu-key', 'sk-secret')")
    page.fill("#field-prompt", "却说")
    curl, python = copied(page, "#curl"), copied(page, "#python")
    page.wait_for_timeout(100)
    assert "sk-secret" not in curl + python
    assert "$PANGU_KEY" in curl and 'os.environ["PANGU_KEY"]' in python


def test_a_shared_link_opens_the_same_state_and_runs_nothing(open_page, stub, address):
    stub.texts = ("甲的续写", "乙的续写")
    page = open_page()
    mode(page, "task")
    choose(page, "couplet")
    page.fill("#field-first", "春风得意“花”千树")
    set_range(page, "n", 2)
    set_range(page, "temperature", 1.2)
    page.fill("#seed", "77")
    page.click("#send")
    done(page)
    link = copied(page, "#share")
    assert link.startswith(address + "/#") and link == page.url
    other = open_page(link.removeprefix(address), locale="en-US")
    until(lambda: texts(other) == ["甲的续写", "乙的续写"])
    assert other.input_value("#field-first") == "春风得意“花”千树"
    assert other.locator("#choices :checked").get_attribute("value") == "couplet"
    assert other.input_value("#temperature") == "1.2" and other.input_value("#seed") == "77"
    assert other.locator("#locked").is_checked()
    assert len(stub.bodies()) == 1
    other.click("#again")
    done(other)
    assert stub.bodies()[1] == stub.bodies()[0]
    assert "#" not in other.url  # another state than the link's


def test_a_dialogue_is_shared_with_its_turns(open_page, stub, address):
    page = open_page()
    mode(page, "dialogue")
    page.fill("#field-turn", "你好")
    page.click("#send")
    done(page)
    other = open_page(copied(page, "#share").removeprefix(address))
    until(lambda: texts(other) == [stub.text])
    assert other.locator("#turns li p").all_inner_texts() == ["你好"]


@pytest.mark.parametrize(
    "state",
    [
        b"not json",
        json.dumps(None).encode(),
        json.dumps(
            {"mode": "<img>", "settings": {"n": 1e9, "temperature": "x"}, "fields": [1], "turns": 3}
        ).encode(),
        json.dumps(
            {"mode": "dialogue", "turns": [None, {"role": "system", "content": 5}], "samples": [{}, 1]}
        ).encode(),
        json.dumps(
            {"samples": [{"text": "<img src=x onerror=document.title=1>", "end": "constructor"}]}
        ).encode(),
    ],
)
def test_a_damaged_or_hostile_link_breaks_nothing(open_page, stub, state):
    page = open_page("/#" + base64.urlsafe_b64encode(state).decode().rstrip("="))
    page.wait_for_timeout(200)
    assert page.title() == "盘古 α" and page.locator("#cards img").count() == 0
    assert 1 <= int(page.input_value("#n")) <= 8
    mode(page, "free")
    write(page, "却说曹操")
    until(lambda: stub.text in texts(page))


def test_history_is_kept_in_the_browser_opens_and_is_erased(open_page, stub):
    page = open_page()
    write(page, "却说曹操")
    page.click("#again")
    done(page)  # the same text: one entry
    stub.text = "玄德曰。"
    write(page, "却说玄德")
    entries = page.locator("#entries .entry span")
    assert entries.all_inner_texts() == ["却说玄德", "却说曹操"]
    page.reload()
    page.locator("#model:not(:empty)").wait_for()
    entries.nth(1).click()
    assert page.input_value("#field-prompt") == "却说曹操" and card_text(page).startswith("引兵")
    page.locator("#entries [aria-label='删除：却说玄德']").click()
    assert entries.all_inner_texts() == ["却说曹操"]
    page.click("#erase")
    assert entries.count() == 0
    assert page.evaluate("localStorage.getItem('pangu-history')") is None


def test_history_holds_fifty_entries(open_page):
    page = open_page()
    old = [{"time": n, "title": f"t{n}", "state": {"mode": "free"}} for n in range(50)]
    page.evaluate("old => localStorage.setItem('pangu-history', JSON.stringify(old))", old)
    write(page, "新")
    assert page.locator("#entries li").count() == 50
    assert page.locator("#entries .entry span").first.inner_text() == "新"


def test_the_language_follows_the_browser_can_be_switched_and_stays(open_page, stub):
    page = open_page(locale="en-GB")
    assert page.locator("header p").inner_text() == "A base language model: it only continues text"
    assert page.locator("html").get_attribute("lang") == "en"
    write(page, "却说曹操")
    page.click("#language")
    assert page.locator("header p").inner_text() == "基础语言模型，只会续写"
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert card_text(page) == stub.text and page.input_value("#field-prompt") == "却说曹操"
    mode(page, "task")
    assert "对联" in page.locator("#choices").inner_text()
    page.reload()
    page.locator("#model:not(:empty)").wait_for()
    assert page.locator("#send").inner_text() == "续写"


def test_both_languages_have_the_same_words(open_page):
    words = open_page().evaluate("import('/page/words.js').then((module) => module.WORDS)")
    named = {
        key: [sorted({part.split("}")[0] for part in text.split("{")[1:]}) for text in pair]
        for key, pair in words.items()
    }
    assert len(words) > 80 and all(len(pair) == 2 and all(pair) for pair in words.values())
    assert not [key for key, (zh, en) in named.items() if zh != en]
    assert not [
        key
        for key, (zh, en) in words.items()
        if any("一" <= letter <= "鿿" for letter in en) and key != "other"
    ]
