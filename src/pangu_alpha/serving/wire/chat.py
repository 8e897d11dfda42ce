"""Conversations as text that a base language model continues: the project's own forms of dialogue.

The model has learned no chat. 甲 and 乙 speak in turns, one line each. After a system message, which
describes 乙, the other speaker is 我.
"""

from __future__ import annotations

from collections.abc import Sequence

from pangu_alpha.serving.wire.fields import Message, Part

USER, SELF, ASSISTANT = "甲", "我", "乙"
STOP = "\n"  # a turn is one line
# The same text as `render` for messages without line feeds and forged turns.
TEMPLATE = (
    "{% set u = '我' if messages[0].role == 'system' else '甲' %}"
    "{% for m in messages %}"
    "{% if m.role == 'system' %}乙：{{ m.content }}\n以下是与乙的对话。\n"
    "{% else %}{{ u if m.role == 'user' else '乙' }}：{{ m.content }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}乙：{% endif %}"
)
# The roles that clients may name, and what they are to the forms.
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def role_of(message: Message) -> str:
    """The role of a message as the forms know it; "" if they do not."""
    return ROLES.get(message.role, "")


def message_problems(messages: Sequence[Message], continued: bool) -> list[str]:
    """Returns one sentence for everything in a conversation that the forms cannot express."""
    problems = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not role_of(message):
            problems.append(f"{where}.role: {message.role[:40]!r} is not known; known are {', '.join(ROLES)}")
        if role_of(message) == "system" and number:
            problems.append(f"{where}.role: only the first message may be the system's")
        if not isinstance(message.content, str):
            wrong = next((part.type for part in message.content if part.type != "text"), None)
            if wrong is not None:
                problems.append(f"{where}.content: a part of type {wrong[:40]!r}; this model reads only text")
    if continued and messages and role_of(messages[-1]) != "assistant":
        problems.append("continue_final_message: the last message is not the assistant's")
    return problems


def content_text(content: str | tuple[Part, ...], speakers: Sequence[str]) -> str:
    """The content of a message on one line, in which no turn of a speaker can be forged."""
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    line = " ".join(text.split("\n")) if "\r" not in text else " ".join(text.splitlines())
    forged = any(line.lstrip().startswith((f"{name}：", f"{name}:")) for name in speakers)
    return f"\u3000{line}" if forged else line


def persona_head(name: str, persona: str) -> str:
    """The description of a speaker, which begins a conversation with him."""
    return f"{name}：{persona}\n以下是与{name}的对话。\n"


def turn(speaker: str, content: str) -> str:
    """One turn of a conversation."""
    return f"{speaker}：{content}\n"


def render(
    messages: Sequence[Message],
    continued: bool = False,
    head: str = "",
    user: str = "",
    name: str = ASSISTANT,
) -> str:
    """Returns a conversation as the text to continue.

    Args:
        messages: The first may be the system's, which describes the assistant.
        continued: Whether the last message, the assistant's, is continued rather than answered.
        head: Text before the messages.
        user: Name of the speaker who asks; "" is 甲, or 我 after a system message.
        name: Name of the speaker who answers.
    """
    described = bool(messages) and role_of(messages[0]) == "system"
    user = user or (SELF if described else USER)
    speakers = (user, name, USER, ASSISTANT)
    text = head
    for message in messages:
        content = content_text(message.content, speakers)
        if role_of(message) == "system":
            text += persona_head(name, content)
        else:
            text += turn(user if role_of(message) == "user" else name, content)
    return text.removesuffix("\n") if continued else f"{text}{name}："
