"""Prompt forms: fields, examples, errors."""

from __future__ import annotations

import pytest

from pangu_alpha.inference.tasks import TASKS, find_task


def test_every_form_renders_with_its_own_fields():
    expected = {"summary", "title", "passage_question", "question", "dialogue", "persona_dialogue", "essay"}
    assert set(TASKS) == expected | {"advertisement", "couplet"}
    for task in TASKS.values():
        values = {name: f"<{name}>" for name in task.fields}
        text = task.render(values)
        assert all(value in text for value in values.values())
        assert task.answer not in task.fields and "{" not in text


def test_examples_come_first_with_their_answers():
    text = find_task("question").render({"question": "三"}, [{"question": "一", "answer": "二"}])
    assert text == "问：一\n答：二\n问：三\n答："


def test_braces_in_a_value_are_text():
    assert find_task("couplet").render({"first": "{x}{"}) == "上联：{x}{\n下联："


def test_errors_list_the_fields():
    with pytest.raises(ValueError) as error:
        find_task("passage_question").render({"pasage": "", "question": 3})
    lines = str(error.value).split("\n")
    assert "'passage' is missing; the fields are passage, question" in lines[0]
    assert "unknown field 'pasage'; did you mean 'passage'?" in lines[1]
    assert "'question' is no text" in lines[2]
    with pytest.raises(ValueError, match="example 0: field 'second' is missing"):
        find_task("couplet").render({"first": "a"}, [{"first": "b"}])
    with pytest.raises(ValueError, match="'cuplet'; did you mean 'couplet'"):
        find_task("cuplet")
