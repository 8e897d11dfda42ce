"""What the page says when something is in the way: keys, a full queue, loading, lengths, broken streams."""

from __future__ import annotations

import pytest
from page_steps import act, card_text, done, problem, set_range, until, write

pytestmark = pytest.mark.long  # minutes in all


def test_the_page_asks_for_a_key_and_keeps_it_for_this_tab(open_page, stub):
    stub.key = "sk-right"
    page = open_page()
    dialog = page.locator("#asking")
    dialog.wait_for()
    assert dialog.locator("#asking-why").inner_text() == "这台服务器要密钥才能用。"
    page.fill("#key", "sk-wrong")
    page.keyboard.press("Enter")
    until(lambda: dialog.locator("#asking-why").inner_text() == "服务器不认这个密钥，请再填一次。")
    page.fill("#key", "sk-right")
    page.click("#asking .main")
    page.locator("#model:not(:empty)").wait_for()
    write(page, "却说曹操")
    assert card_text(page) == stub.text
    page.reload()
    page.locator("#model:not(:empty)").wait_for()
    assert page.evaluate("Object.keys(localStorage).concat(document.cookie)").count("pangu-key") == 0
    page.click("#forget")
    write(page, "却说", wait=False)
    dialog.wait_for()
    page.keyboard.press("Escape")
    assert problem(page) == "没有密钥或密钥不对，服务器没有回答。"


def test_counting_tokens_never_asks_for_a_key(open_page, stub):
    page = open_page()
    stub.key = "sk-new"
    page.fill("#field-prompt", "却说曹操")
    until(lambda: ("/tokenize") in [path for path, _ in stub.seen])
    page.wait_for_timeout(200)
    assert not page.locator("#asking").is_visible()


def test_a_full_queue_says_how_long_to_wait_and_tries_again_then(open_page, stub):
    stub.refusals = [(429, "queue_full", 2)]
    page = open_page()
    write(page, "却说曹操")
    assert problem(page) == "排队的人太多，请在 2 秒后再试。"
    retry = page.locator("#problem button")
    assert retry.is_disabled()
    until(retry.is_enabled)
    retry.click()
    until(lambda: card_text(page) == stub.text)
    assert page.locator("#problem").is_hidden()


@pytest.mark.parametrize(
    ("status", "code", "zh", "en"),
    [
        (
            429,
            "rate_limit_exceeded",
            "这个密钥用得太快，请在 9 秒后再试。",
            "This key asks too often. Try again in 9 s.",
        ),
        (
            503,
            "draining",
            "服务器正要重启，请在 9 秒后再试。",
            "The server is about to restart. Try again in 9 s.",
        ),
        (403, "model_not_allowed", "这个密钥不能用这个模型。", "This key may not use this model."),
        (500, "internal_error", "服务器内部出错，请看它的日志。", "The server failed. Its log says more."),
        (400, "invalid", "出错了：refused: invalid", "Something went wrong: refused: invalid"),
    ],
)
def test_refusals_are_worded_in_both_languages(open_page, stub, status, code, zh, en):
    stub.refusals = [(status, code, 9)] * 2
    for locale, words in (("zh-CN", zh), ("en-GB", en)):
        page = open_page(locale=locale)
        write(page, "却说曹操")
        assert problem(page) == words


def test_a_loading_model_is_said_and_awaited(open_page, stub):
    stub.loading = True
    page = open_page()
    until(lambda: page.locator("#notice").inner_text() == "模型正在载入，请稍候，本页会自己继续。")
    stub.refusals = [(503, "loading", 5)]
    write(page, "却说曹操")
    assert problem(page).startswith("模型正在载入")
    stub.loading = False
    until(lambda: page.locator("#notice").is_hidden())


def test_a_page_opened_while_nothing_is_ready_begins_by_itself(open_page, stub):
    stub.loading = stub.all_loading = True
    page = open_page()
    until(lambda: page.locator("#notice").is_visible())
    stub.loading = stub.all_loading = False
    page.locator("#model:not(:empty)").wait_for()
    write(page, "却说曹操")
    assert card_text(page) == stub.text


def test_too_long_says_by_how_much_and_offers_the_length_that_fits(open_page, stub):
    stub.context = 200
    page = open_page()
    write(page, "字" * 150)
    assert problem(page) == "太长了：已有 150 个词元，还要写 128 个，比上限 200 多了 78 个。"
    page.click("#problem button")
    until(lambda: card_text(page) == stub.text[:50])
    assert page.input_value("#max_tokens") == "50"


@pytest.mark.parametrize("how", ["broken_after", "error_after"])
def test_a_stream_that_breaks_keeps_what_was_written(open_page, stub, how):
    setattr(stub, how, 6)
    page = open_page()
    write(page, "却说曹操")
    words = {
        "broken_after": "回答到一半断了，已写的还在。",
        "error_after": "模型进程出了问题，正在重新启动，请在 1 秒后再试。",
    }
    assert problem(page) == words[how]
    assert card_text(page) == stub.text[:6]
    assert "中断了" in page.locator(".card footer").inner_text()
    setattr(stub, how, None)
    act(page, "more")
    until(lambda: card_text(page) == stub.text[:6] + stub.text)


def test_a_refused_continuation_keeps_the_text_and_can_be_tried_again(open_page, stub):
    page = open_page()
    set_range(page, "max_tokens", 5)
    write(page, "却说曹操")
    stub.refusals = [(429, "queue_full", 1)]
    act(page, "more")
    assert problem(page).startswith("排队的人太多")
    assert card_text(page) == stub.text[:5]
    page.click("#problem button")
    until(lambda: card_text(page) == stub.text[:5] * 2)


def test_a_server_that_is_gone_is_said(open_page, address, stub):
    page = open_page()
    page.context.set_offline(True)
    write(page, "却说曹操")
    assert problem(page) == "连不上服务器。它还在运行吗？"
    page.context.set_offline(False)
    page.click("#problem button")
    until(lambda: card_text(page) == stub.text)


def test_nothing_is_sent_for_nothing(open_page, stub):
    page = open_page()
    write(page, "   ")
    assert problem(page) == "先写点什么。"
    assert stub.bodies() == []
    done(page)
