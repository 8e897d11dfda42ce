"""Prompt forms for the tasks shown with the published model, zero-shot or after a few examples.

PanGu-alpha is a base language model, so a form only begins a text whose likely continuation is the answer.
We wrote the forms in the plain style of the paper's examples (arXiv 2104.12369, section 5 and appendix).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from pangu_alpha.config.schema import nearest
from pangu_alpha.files.shown import quoted


@dataclass(frozen=True)
class Task:
    """One prompt form.

    Args:
        summary: What the form is for.
        prompt: The form; {names} in it are its fields.
        answer: Name of the additional field of a solved example, which follows the prompt.
        separator: Text between two examples, and between the last one and the prompt.
        stop: Texts that end an answer.
    """

    summary: str
    prompt: str
    answer: str
    separator: str = "\n"
    stop: tuple[str, ...] = ("\n",)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that the prompt needs, in order."""
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.prompt) if name))

    def render(self, fields: Mapping[str, str], examples: Sequence[Mapping[str, str]] = ()) -> str:
        """Returns the text to continue.

        Args:
            fields: Value of every field of the prompt.
            examples: Solved cases to show before it, each with the prompt's fields and the answer.

        Raises:
            ValueError: Lists all missing and unknown fields, and the known ones.
        """
        problems = self._problems(fields, self.fields, "the prompt")
        for number, example in enumerate(examples):
            problems += self._problems(example, (*self.fields, self.answer), f"example {number}")
        if problems:
            raise ValueError("\n".join(problems))
        shown = [self.prompt.format(**example) + example[self.answer] for example in examples]
        return self.separator.join([*shown, self.prompt.format(**fields)])

    def _problems(self, given: Mapping[str, str], needed: Sequence[str], where: str) -> list[str]:
        known = f"the fields are {', '.join(needed)}"
        missing = [f"{where}: field {name!r} is missing; {known}" for name in needed if name not in given]
        extra = [
            f"{where}: unknown field {quoted(name)}; {nearest(name, needed)}"
            for name in given
            if name not in needed
        ]
        wrong = [
            f"{where}: field {name!r} is no text: {quoted(value)}"
            for name, value in given.items()
            if name in needed and not isinstance(value, str)
        ]
        return missing + extra + wrong


TASKS: Mapping[str, Task] = {
    "summary": Task("summary of a text", "正文：{text}\n摘要：", "summary"),
    "title": Task("headline of a text", "正文：{text}\n标题：", "title"),
    "passage_question": Task(
        "question answered by a passage", "阅读文章：{passage}\n问：{question}\n答：", "answer"
    ),
    "question": Task("question without a passage", "问：{question}\n答：", "answer"),
    "dialogue": Task("next turn of a conversation", "{history}\n甲：{turn}\n乙：", "reply", "\n\n"),
    "persona_dialogue": Task(
        "next turn by somebody who is described",
        "{name}：{persona}\n以下是与{name}的对话。\n{history}\n我：{turn}\n{name}：",
        "reply",
        "\n\n",
    ),
    "essay": Task("essay on a title, by its opening", "作文题目：{title}\n{opening}", "rest", "\n\n", ()),
    "advertisement": Task("advertisement of a product", "产品：{product}\n特点：{features}\n广告：", "text"),
    "couplet": Task("second line of a couplet", "上联：{first}\n下联：", "second"),
}


def find_task(name: str) -> Task:
    """Returns a task by its name.

    Raises:
        ValueError: There is no such task; the message names the most similar one, or lists all.
    """
    if name not in TASKS:
        raise ValueError(f"task: there is none called {quoted(name)}; {nearest(name, TASKS)}")
    return TASKS[name]
