"""The prompts of a request: text, ids, lists of them, tasks and scenarios, all to ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pangu_alpha.inference.tasks import find_task
from pangu_alpha.serving.scenarios import Scenario
from pangu_alpha.serving.wire import chat
from pangu_alpha.serving.wire.fields import ChatFields, CompletionFields, Message, TokenizeFields
from pangu_alpha.serving.wire.tokens import ModelFacts

MOST_PROMPTS = 256  # of one request


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Args:
        text: As the client wrote it; None if the client gave ids.
    """

    ids: tuple[int, ...]
    text: str | None = None


def completion_prompts(
    fields: CompletionFields, facts: ModelFacts, scenario: Scenario | None
) -> tuple[list[Prompt], list[str]]:
    """Returns the prompts of a completions request, and what is wrong with them."""
    if fields.task is not None or scenario is not None:
        try:
            return _encoded([_filled(fields, scenario)], facts)
        except ValueError as error:
            return [], str(error).split("\n")
    if fields.fields is not None or fields.examples is not None:
        return [], ["fields: only with a task or a scenario"]
    given = fields.prompt
    if given is None:
        return [Prompt((facts.end_of_document,))], []
    if isinstance(given, str):
        return _encoded([given], facts)
    if not given:
        return [], ["prompt: an empty list; give text or ids, or leave it out to begin a document"]
    if isinstance(given[0], int):
        given = (given,)
    if len(given) > MOST_PROMPTS:
        return [], [f"prompt: {len(given)} prompts; at most {MOST_PROMPTS} are allowed in one request"]
    if isinstance(given[0], str):
        return _encoded(given, facts)
    return _checked([Prompt(tuple(ids)) for ids in given], facts)


def chat_text(
    messages: Sequence[Message], continued: bool, scenario: Scenario | None
) -> tuple[str, list[str]]:
    """Returns a conversation as the text to continue, and what is wrong with it."""
    problems = chat.message_problems(messages, continued)
    if scenario and messages and chat.role_of(messages[0]) == "system":
        problems.append("messages[0].role: a scenario describes itself; leave out the system's message")
    if problems:
        return "", problems
    try:
        render = scenario.conversation if scenario else chat.render
        return render(messages, continued), []
    except ValueError as error:
        return "", str(error).split("\n")


def chat_prompts(
    fields: ChatFields, facts: ModelFacts, scenario: Scenario | None
) -> tuple[list[Prompt], list[str]]:
    """Returns the prompt of a chat, and what is wrong with it."""
    text, problems = chat_text(fields.messages, fields.continue_final_message, scenario)
    return ([], problems) if problems else _encoded([text], facts)


def text_to_encode(fields: TokenizeFields, scenario: Scenario | None) -> tuple[str, list[str]]:
    """Returns the text of a request to /tokenize, and what is wrong with it."""
    if fields.prompt is not None:
        return fields.prompt, []
    if fields.messages is not None:
        return chat_text(fields.messages, fields.continue_final_message, scenario)
    try:
        return find_task(fields.task or "").render(fields.fields or {}, fields.examples or ()), []
    except ValueError as error:
        return "", str(error).split("\n")


def _filled(fields: CompletionFields, scenario: Scenario | None) -> str:
    if scenario is None:
        return find_task(fields.task or "").render(fields.fields or {}, fields.examples or ())
    if fields.task is not None or fields.examples is not None:
        raise ValueError("task: a scenario has its own task and examples; give its open fields alone")
    given = dict(fields.fields or {})
    if fields.prompt is not None:
        if not isinstance(fields.prompt, str) or len(scenario.open_fields) != 1 or given:
            raise ValueError(f"prompt: give this scenario's open fields: {', '.join(scenario.open_fields)}")
        given = {scenario.open_fields[0]: fields.prompt}
    return scenario.prompt(given)


def _encoded(texts: Sequence[str], facts: ModelFacts) -> tuple[list[Prompt], list[str]]:
    return _checked([Prompt(tuple(facts.encode(text)), text) for text in texts], facts)


def _checked(prompts: list[Prompt], facts: ModelFacts) -> tuple[list[Prompt], list[str]]:
    problems = []
    for number, prompt in enumerate(prompts):
        where = f"prompt[{number}]" if len(prompts) > 1 else "prompt"
        if not prompt.ids:
            problems.append(f"{where}: empty, or only of characters that the vocabulary drops; give text")
        elif min(prompt.ids) < 0 or max(prompt.ids) >= facts.vocab_size:
            problems.append(f"{where}: holds ids outside the vocabulary of {facts.vocab_size}")
    return prompts, problems
