"""Text on the page: it streams, stops, goes on, is undone, and goes another way from any token."""

from __future__ import annotations

import pytest
from page_steps import act, card_text, done, mode, set_range, texts, until, write

pytestmark = pytest.mark.slow


def test_text_grows_in_place_and_ends_as_the_server_sent_it(open_page, stub):
    stub.delay = 0.03
    page = open_page()
    write(page, "却说曹操", wait=False)
    until(lambda: 3 <= len(card_text(page)) < len(stub.text))
    early = card_text(page)
    assert stub.text.startswith(early)
    assert page.locator("#cards").get_attribute("aria-busy") == "true"
    until(lambda: len(card_text(page)) > len(early))
    done(page)
    assert card_text(page) == stub.text
    assert page.locator("#cards").get_attribute("aria-busy") == "false"
    assert page.locator(".card footer").inner_text().endswith("到长度上限 · 86 个词元")
    (body,) = stub.bodies()
    assert body["prompt"] == "却说曹操" and body["model"] == "pangu" and body["stream"] is True


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_ends_the_request_and_keeps_the_text(open_page, stub, how):
    stub.delay = 0.05
    page = open_page()
    write(page, "却说曹操", wait=False)
    until(lambda: len(card_text(page)) >= 3)
    assert stub.running == 1
    if how == "button":
        page.click("#stop")
    else:
        page.keyboard.press("Escape")
    until(lambda: stub.running == 0)
    assert stub.cancelled == 1
    done(page)
    kept = card_text(page)
    assert 3 <= len(kept) < len(stub.text) and stub.text.startswith(kept)
    assert "已停止" in page.locator(".card footer").inner_text()


def test_continue_sends_what_stands_there_and_adds_to_it(open_page, stub):
    page = open_page()
    set_range(page, "max_tokens", 10)
    write(page, "却说曹操")
    first = card_text(page)
    assert first == stub.text[:10]
    stub.text = "，望见城头。"
    act(page, "more")
    until(lambda: card_text(page) == first + stub.text)
    assert stub.bodies()[1]["prompt"] == "却说曹操" + first


def test_rewrite_and_undo(open_page, stub):
    page = open_page()
    assert page.locator("#undo").is_disabled() and page.locator("#again").is_disabled()
    write(page, "却说曹操")
    first, stub.text = stub.text, "另一种写法。"
    page.click("#again")
    until(lambda: card_text(page) == stub.text)
    page.click("#undo")
    assert card_text(page) == first
    page.click("#undo")
    assert texts(page) == [] and page.locator(".try").count() == 4
    assert page.input_value("#field-prompt") == "却说曹操"


def test_merge_makes_the_answer_part_of_the_beginning(open_page, stub):
    stub.text = "引兵至濮阳。"
    page = open_page()
    write(page, "却说曹操")
    act(page, "merge")
    assert page.input_value("#field-prompt") == "却说曹操引兵至濮阳。"
    assert texts(page) == []
    page.click("#undo")
    assert page.input_value("#field-prompt") == "却说曹操" and texts(page) == ["引兵至濮阳。"]


def test_samples_stand_side_by_side_and_one_goes_on_alone(open_page, stub):
    stub.texts = ("甲的续写", "乙的另一种续写", "丙")
    page = open_page()
    set_range(page, "n", 3)
    write(page, "开头")
    assert texts(page) == [*stub.texts]
    boxes = [card.bounding_box() for card in page.locator(".card").all()]
    assert len({round(box["y"]) for box in boxes}) == 1 and len({round(box["x"]) for box in boxes}) == 3
    stub.texts = ("，还有",)
    act(page, "more", 1)
    until(lambda: texts(page) == ["甲的续写", "乙的另一种续写，还有", "丙"])
    assert stub.bodies()[1]["n"] == 1 and stub.bodies()[1]["prompt"] == "开头乙的另一种续写"


def test_a_token_shows_five_alternatives_and_another_text_begins_there(open_page, stub):
    page = open_page()
    write(page, "却说曹操")
    page.check("#probabilities")
    tokens = page.locator(".token")
    assert tokens.count() == len(stub.text)
    assert tokens.nth(0).get_attribute("aria-label") == "引，92%"
    assert tokens.nth(2).get_attribute("aria-label") == "至，7.0%"
    depth = [tokens.nth(i).evaluate("t => getComputedStyle(t).backgroundColor") for i in (0, 2)]
    opacity = [float(colour.split("/")[-1].split(",")[-1].strip(" )")) for colour in depth]
    assert opacity == pytest.approx([0.08 * 0.42, 0.93 * 0.42], abs=0.005)
    tokens.nth(2).click()
    rows = page.locator("#alternatives .other")
    assert rows.all_inner_texts() == ["之\n47%", "曰\n23%", "也\n14%", "至\n7.0%", "遂\n4.7%"]
    assert rows.nth(3).get_attribute("aria-current") == "true"
    stub.text = "乎哉。"
    rows.nth(1).click()
    until(lambda: card_text(page) == "引兵曰乎哉。")
    assert stub.bodies()[1]["prompt"] == "却说曹操引兵曰"
    tokens.nth(2).click()  # the way back is among its alternatives
    assert rows.nth(3).inner_text() == "至\n7.0%"
    page.keyboard.press("Escape")
    page.click("#undo")
    assert card_text(page).startswith("引兵至濮阳")


def test_tokens_are_reached_by_the_keyboard(open_page):
    page = open_page()
    write(page, "却说曹操")
    page.check("#probabilities")
    page.locator(".token").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.locator("#alternatives [aria-current]").inner_text() == "兵\n41%"
    page.keyboard.press("Escape")
    page.locator("#alternatives").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.dataset.place") == "1"
    assert page.locator(".token[tabindex='0']").count() == 1


def test_ids_with_one_text_are_merged_and_end_of_text_is_no_choice(open_page, stub):
    stub.text = "的"
    stub.top = [("的", -0.5), ("的", -2.0), ("<eot>", -1.2), ("\n", -3.0)]
    page = open_page()
    mode(page, "dialogue")
    write(page, "谁")
    page.check("#probabilities")
    page.locator(".token").click()
    rows = page.locator("#alternatives .other")
    assert rows.all_inner_texts() == ["的\n61%", "全文结束\n30%", "↵ 换行\n5.0%"]
    assert [row.is_disabled() for row in rows.all()] == [False, True, False]


def test_where_tokens_do_not_spell_the_text_the_text_counts(open_page):
    page = open_page()
    tokens = page.evaluate(
        "async (choice) => (await import('/page/api.js')).tokensOf(choice)",
        {"text": "完", "logprobs": {"tokens": ["完了"], "token_logprobs": [-1], "top_logprobs": [{}]}},
    )
    assert tokens == [{"text": "完", "logprob": None, "top": []}]


def test_sampling_is_sent_shown_and_reset(open_page, stub):
    page = open_page()
    values = {"temperature": 0, "top_p": 0.5, "top_k": 40, "frequency_penalty": 0.5, "presence_penalty": -1}
    for name, value in values.items():
        set_range(page, name, value)
    write(page, "却说曹操")
    body = stub.bodies()[0]
    assert {name: body[name] for name in values} == values
    assert body["max_tokens"] == 128 and body["n"] == 1 and "seed" not in body
    assert page.locator("output[for=top_k]").inner_text() == "40"
    page.click("#reset")
    assert page.input_value("#temperature") == "0.8" and page.input_value("#top_k") == "0"
    page.click("#again")
    done(page)
    assert stub.bodies()[1]["temperature"] == 0.8


def test_the_drawn_seed_is_shown_and_can_be_locked(open_page, stub):
    page = open_page()
    write(page, "却说曹操")
    assert page.input_value("#seed") == "20210426"
    page.check("#locked")
    page.click("#again")
    done(page)
    assert [body.get("seed") for body in stub.bodies()] == [None, 20210426]
    page.fill("#seed", "7")
    page.click("#again")
    done(page)
    assert stub.bodies()[2]["seed"] == 7


def test_tokens_are_counted_and_what_is_too_many_is_said(open_page, stub):
    page = open_page()
    page.fill("#field-prompt", "字" * 20)
    until(lambda: page.locator("#count").inner_text() == "20 / 512 词元")
    page.fill("#field-prompt", "字" * 400)
    until(lambda: page.locator("#count").inner_text() == "400 + 128，比上限 512 多 16 个词元")
    set_range(page, "max_tokens", 100)
    until(lambda: page.locator("#count").inner_text() == "400 / 512 词元")
    mode(page, "dialogue")
    page.fill("#field-turn", "你好")
    until(lambda: page.locator("#count").inner_text() == "2 / 512 词元")
    assert stub.seen[-1][1]["messages"] == [{"role": "user", "content": "你好"}]


@pytest.mark.parametrize("phone", [True, False])
def test_enter_sends_no_text_on_phones_and_ctrl_enter_sends_everywhere(open_page, stub, phone):
    options = {"is_mobile": True, "has_touch": True, "width": 360} if phone else {}
    page = open_page(**options)
    page.locator("#modes input[value=dialogue]").locator("..").click()
    page.fill("#field-turn", "你好")
    page.press("#field-turn", "Enter")
    page.wait_for_timeout(200)
    assert len(stub.bodies()) == (0 if phone else 1)
    if phone:
        page.press("#field-turn", "Control+Enter")
        until(lambda: len(stub.bodies()) == 1)
    done(page)
    assert stub.bodies()[0]["messages"] == [{"role": "user", "content": "你好"}]


def test_enter_ends_a_line_of_a_long_text_and_an_input_method_keeps_it(open_page, stub):
    page = open_page()
    page.focus("#field-prompt")
    page.keyboard.type("第一行")
    page.press("#field-prompt", "Enter")
    page.keyboard.insert_text("第二行")
    assert page.input_value("#field-prompt") == "第一行\n第二行" and stub.bodies() == []
    page.locator("#modes input[value=dialogue]").locator("..").click()
    page.fill("#field-turn", "ni hao")
    page.dispatch_event("#field-turn", "keydown", {"key": "Enter", "isComposing": True})
    page.wait_for_timeout(200)
    assert stub.bodies() == []


def test_who_types_while_text_arrives_goes_on_typing(open_page, stub):
    stub.delay = 0.02
    page = open_page()
    write(page, "却说曹操", wait=False)
    page.focus("#field-prompt")
    page.keyboard.press("End")
    page.keyboard.insert_text("，字孟德")
    done(page)
    page.keyboard.insert_text("也")
    assert page.input_value("#field-prompt") == "却说曹操，字孟德也"
