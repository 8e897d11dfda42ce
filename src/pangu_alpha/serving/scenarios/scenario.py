"""A scenario: its YAML, its checks, and the prompts it makes of what a user writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.schema import ConfigError, build, nearest, read_yaml, validate
from pangu_alpha.inference.tasks import TASKS, Task
from pangu_alpha.serving.wire import chat
from pangu_alpha.serving.wire.fields import Message

LANGUAGES = ("en", "zh")
PERSONA = "persona_dialogue"  # the task whose scenarios are conversations
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Turn:
    """A line of the user and the answer to it, shown before the conversation."""

    user: str = option(REQUIRED, "what the user says")
    reply: str = option(REQUIRED, "what the scenario answers")


@dataclass(frozen=True)
class ScenarioSampling:
    """Sampling of a scenario, for what a request leaves open."""

    temperature: float | None = option(None, "see /v1/completions", at_least=0, at_most=2)
    top_p: float | None = option(None, "see /v1/completions", above=0, at_most=1)
    top_k: int | None = option(None, "see /v1/completions", at_least=0)
    min_p: float | None = option(None, "see /v1/completions", at_least=0, at_most=1)
    frequency_penalty: float | None = option(None, "see /v1/completions", at_least=-2, at_most=2)
    presence_penalty: float | None = option(None, "see /v1/completions", at_least=-2, at_most=2)
    max_tokens: int | None = option(None, "see /v1/completions", at_least=1)

    def given(self) -> dict[str, Any]:
        """The values that the scenario sets."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Scenario:
    """What one YAML file says.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    task: str = option(REQUIRED, "name of the task whose form it fills")
    title: dict[str, str] = option(REQUIRED, "its name for people, in en and zh")
    description: dict[str, str] = option(REQUIRED, "one sentence about it, in en and zh")
    fields: dict[str, str] | None = option(None, "fixed values of fields of the task")
    examples: tuple[dict[str, str], ...] = option((), "solved examples; a fixed field may be left out")
    turns: tuple[Turn, ...] = option((), "of a conversation: what was said before it begins")
    greeting: str | None = option(None, "of a conversation: its first line, which clients show")
    stop: tuple[str, ...] | None = option(None, "texts that end an answer; null takes the task's")
    sampling: ScenarioSampling = ScenarioSampling()

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("title", "description"):
            given = getattr(self, name)
            if isinstance(given, Mapping) and set(given) != set(LANGUAGES):
                yield f"{name}: needs a text in each of {', '.join(LANGUAGES)}"
        task = TASKS.get(self.task) if isinstance(self.task, str) else None
        if task is None:
            yield f"task: there is none called {str(self.task)[:40]!r}; {nearest(self.task, TASKS)}"
        elif isinstance(self.fields, Mapping) or self.fields is None:
            yield from self._field_problems(task)
        if self.task != PERSONA and (self.turns or self.greeting):
            yield f"{'turns' if self.turns else 'greeting'}: only a scenario of the task {PERSONA} converses"

    def _field_problems(self, task: Task) -> Iterator[str]:
        for name in self.fixed:
            if name not in task.fields:
                yield f"fields: unknown field {name[:40]!r}; {nearest(name, task.fields)}"
        if self.converses and not {"name", "persona"} <= set(self.fixed):
            yield "fields: a conversation needs the fixed fields name and persona"
        if not self.open_fields:
            yield "fields: all are fixed, so there is nothing that a user could give"
        if self.converses and self.examples:
            yield "examples: a conversation is shown by turns; write them there"
        for number, example in enumerate(self.examples if isinstance(self.examples, tuple) else ()):
            try:
                task.render(dict.fromkeys(task.fields, ""), [{**self.fixed, **example}])
            except ValueError as error:
                yield from (f"examples[{number}]: {line}" for line in str(error).split("\n"))

    @property
    def fixed(self) -> Mapping[str, str]:
        """The values of fixed fields."""
        return self.fields or {}

    @property
    def converses(self) -> bool:
        """Whether it answers turns, rather than filling a form once."""
        return self.task == PERSONA

    @property
    def form(self) -> Task:
        """The task's form."""
        return TASKS[self.task]

    @property
    def open_fields(self) -> tuple[str, ...]:
        """Fields that a request gives; what was said before is the client's, not a field."""
        hidden = {"history"} if self.converses else set()
        return tuple(name for name in self.form.fields if name not in self.fixed and name not in hidden)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return self.form.stop if self.stop is None else self.stop

    def prompt(self, fields: Mapping[str, str]) -> str:
        """Returns the text to continue for the open fields.

        Raises:
            ValueError: Fields are missing, unknown or fixed.
        """
        wrong = [name for name in fields if name not in self.open_fields]
        missing = [name for name in self.open_fields if name not in fields]
        if wrong or missing:
            words = [f"unknown field {name[:40]!r}" for name in wrong]
            words += [f"field {name!r} is missing" for name in missing]
            raise ValueError(f"{', '.join(words)}; the open fields are {', '.join(self.open_fields)}")
        if self.converses:
            return self.conversation([Message("user", fields["turn"])])
        return self.form.render({**self.fixed, **fields}, self._whole_examples())

    def conversation(self, messages: Sequence[Message], continued: bool = False) -> str:
        """Returns a conversation as the text to continue.

        Raises:
            ValueError: The scenario does not converse and has several open fields, or no question ends it.
        """
        if self.converses:
            name = self.fixed["name"]
            return chat.render(messages, continued, self.head(), chat.SELF, name)
        if len(self.open_fields) > 1:
            raise ValueError(
                f"messages: this scenario needs the fields {', '.join(self.open_fields)}; send them to "
                "/v1/completions as fields"
            )
        if continued or chat.role_of(messages[-1]) != "user":
            raise ValueError("messages: this scenario answers a last message of the user")
        (field,) = self.open_fields
        return self.prompt({field: chat.content_text(messages[-1].content, ())})

    def head(self) -> str:
        """The text that begins every prompt of the scenario, up to its first open field."""
        if not self.converses:
            open_form = self.form.prompt.partition("{" + self.open_fields[0] + "}")[0]
            shown = [
                self.form.prompt.format(**each) + each[self.form.answer] for each in self._whole_examples()
            ]
            return self.form.separator.join([*shown, open_form.format(**dict(self.fixed))])
        name, persona = self.fixed["name"], self.fixed["persona"]
        text = chat.persona_head(name, persona)
        for each in self.turns:
            text += chat.turn(chat.SELF, each.user) + chat.turn(name, each.reply)
        return text + (chat.turn(name, self.greeting) if self.greeting else "")

    def _whole_examples(self) -> list[dict[str, str]]:
        return [{**self.fixed, **example} for example in self.examples]


def shipped_scenarios() -> dict[str, Scenario]:
    """The scenarios that come with the package, by name."""
    return load_scenarios(Path(__file__).parent / "shipped")


def load_scenarios(folder: str | Path) -> dict[str, Scenario]:
    """Reads every *.yaml of a folder; a file's name without its ending is the scenario's.

    Raises:
        ConfigError: The folder is missing or holds none; or lists the problems of all files.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ConfigError(
            [f"scenarios: {folder}: there is no .yaml file in it; give a folder with scenarios"]
        )
    found: dict[str, Scenario] = {}
    problems: list[str] = []
    for file in files:
        if not _NAME.fullmatch(file.stem):
            problems.append(f"{file}: the name must be of a-z, 0-9, _ and -; clients ask for it by this name")
            continue
        try:
            found[file.stem] = build(Scenario, read_yaml(file))
        except ConfigError as error:
            problems += [f"{file}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return found
