"""The nine tasks, dialogues and scenarios: their forms, and what is sent for them."""

from __future__ import annotations

import pytest
from page_steps import act, card_text, choose, done, mode, set_range, texts, until
from page_stub import LABELS, SCENARIOS, SOLVED, STORY, TITLES

from pangu_alpha.inference.tasks import TASKS

pytestmark = pytest.mark.long  # minutes in all


@pytest.mark.parametrize("name", [*TASKS])
def test_a_task_has_its_form_and_one_click_tries_it(open_page, stub, name):
    page = open_page()
    mode(page, "task")
    choose(page, name)
    fields = TASKS[name].fields
    assert page.locator("#form .field label").all_inner_texts() == [LABELS[one] for one in fields]
    assert page.locator("#choices :checked + span").inner_text() == TITLES[name][1]
    page.click(".try")
    done(page)
    assert card_text(page) == stub.text
    body = stub.bodies()[0]
    assert body["task"] == name and "prompt" not in body and "stop" not in body
    assert body["fields"] == {one: f"{LABELS[one]}的例子" for one in fields}
    assert body.get("examples") == SOLVED.get(name)


def test_a_task_goes_on_from_the_text_that_the_server_rendered(open_page, stub):
    page = open_page()
    mode(page, "task")
    choose(page, "couplet")
    page.uncheck("#shots")
    page.fill("#field-first", "春风得意")
    page.click("#send")
    done(page)
    assert "examples" not in stub.bodies()[0]
    stub.text = "。"
    act(page, "more")
    until(lambda: card_text(page) == STORY + "。")
    body = stub.bodies()[1]
    assert body["prompt"] == "上联：春风得意\n下联：" + STORY
    assert body["stop"] == ["\n"] and "task" not in body and "fields" not in body


def test_beyond_a_stop_text_nothing_stops_it_again(open_page, stub):
    stub.text, stub.finish, stub.stop_reason = "秋月", "stop", "\n"
    page = open_page()
    mode(page, "task")
    choose(page, "question")
    page.click(".try")
    done(page)
    assert "写完了" in page.locator(".card footer").inner_text()
    stub.text = "问：又一个"
    act(page, "more")
    until(lambda: card_text(page) == "秋月\n问：又一个")
    assert "stop" not in stub.bodies()[1] and stub.bodies()[1]["prompt"].endswith("秋月\n")


def test_fields_of_one_name_keep_their_text_in_another_task(open_page):
    page = open_page()
    mode(page, "task")
    choose(page, "summary")
    page.fill("#field-text", "一段长文")
    choose(page, "title")
    assert page.input_value("#field-text") == "一段长文"


def test_a_dialogue_keeps_its_turns_and_the_chosen_reply(open_page, stub):
    stub.texts, stub.finish = ("我是甲。", "我是乙。"), "stop"
    page = open_page()
    mode(page, "dialogue")
    page.fill("#field-persona", "一位老先生")
    set_range(page, "n", 2)
    page.fill("#field-turn", "你是谁？")
    page.click("#send")
    done(page)
    assert texts(page) == ["我是甲。", "我是乙。"]
    act(page, "use", 1)
    page.fill("#field-turn", "真的？")
    page.click("#send")
    until(lambda: len(stub.bodies()) == 2)
    done(page)
    assert stub.bodies()[1]["messages"] == [
        {"role": "system", "content": "一位老先生"},
        {"role": "user", "content": "你是谁？"},
        {"role": "assistant", "content": "我是乙。"},
        {"role": "user", "content": "真的？"},
    ]
    assert page.locator("#turns li p").all_inner_texts() == ["你是谁？", "我是乙。", "真的？"]
    page.click("#undo")
    assert page.locator("#turns li p").all_inner_texts() == ["你是谁？"]
    assert texts(page) == ["我是甲。", "我是乙。"] and page.input_value("#field-turn") == "真的？"


def test_a_reply_goes_another_way_from_a_token(open_page, stub):
    page = open_page()
    mode(page, "dialogue")
    page.fill("#field-turn", "如何？")
    page.click("#send")
    done(page)
    page.check("#probabilities")
    page.locator(".token").nth(2).click()
    stub.text = "然。"
    page.locator("#alternatives .other").first.click()
    until(lambda: card_text(page) == "引兵之然。")
    body = stub.bodies()[1]
    assert body["messages"][-1] == {"role": "assistant", "content": "引兵之"}
    assert body["continue_final_message"] is True and body["top_logprobs"] == 5


def test_a_scenario_is_a_model_with_its_greeting_and_sampling(open_page, stub):
    page = open_page()
    mode(page, "dialogue")
    choose(page, "pangu/refrigerator")
    assert page.locator("#turns li p").all_inner_texts() == [SCENARIOS[0]["greeting"]]
    assert page.locator("#about").inner_text() == "它知道自己肚子里有什么。"
    assert page.locator("#field-persona").count() == 0
    page.fill("#field-turn", "有白菜吗？")
    page.click("#send")
    done(page)
    body = stub.bodies()[0]
    assert body["model"] == "pangu/refrigerator"
    assert body["messages"] == [{"role": "user", "content": "有白菜吗？"}]  # the server knows the greeting
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.6, 0.85, 64)
    choose(page, "")
    assert page.input_value("#temperature") == "0.8"


def test_a_scenario_of_another_task_has_a_form_of_its_open_fields(open_page, stub):
    page = open_page()
    mode(page, "task")
    choose(page, "pangu/shop")
    assert page.locator("#form .field label").all_inner_texts() == ["特点"]
    page.fill("#field-features", "明前龙井")
    page.click("#send")
    done(page)
    body = stub.bodies()[0]
    assert body["model"] == "pangu/shop" and body["fields"] == {"features": "明前龙井"}
    assert "task" not in body
    assert page.locator("[data-action=more]").count() == 0  # nobody sees its prompt


def test_a_key_of_scenarios_sees_only_those(open_page, stub):
    stub.only_scenarios = True
    page = open_page()
    assert page.locator("#modes :checked").get_attribute("value") == "dialogue"
    assert page.locator("#modes input[value=free]").is_disabled()
    assert page.locator("#turns li p").all_inner_texts() == [SCENARIOS[0]["greeting"]]
    mode(page, "task")
    assert page.locator("#form .field label").all_inner_texts() == ["特点"]
