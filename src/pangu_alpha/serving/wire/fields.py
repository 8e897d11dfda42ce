"""The fields of the requests' JSON bodies, each declared once: its type, bounds and meaning.

The checks of a body, the message about an unknown field, and /openapi.json derive from these dataclasses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pangu_alpha.config.option import REQUIRED, option

MOST_STOPS, MOST_STOP_LETTERS = 16, 64
MOST_BIASES = 1024
MOST_LOGPROBS = 20

# Fields that clients send without being asked, and that have no effect here whatever they say.
IGNORED = ("user", "metadata", "store", "service_tier", "parallel_tool_calls", "prompt_cache_key",
           "safety_identifier")  # fmt: skip
# Fields of the interface for which there is nothing here, unless their value asks for nothing.
ABSENT = {
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "function_call": "none",
    "suffix": "",
    "response_format": {"type": "text"},
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "modalities": ["text"],
    "audio": {},
    "prediction": {},
    "reasoning_effort": "none",
    "web_search_options": {},
    "use_beam_search": False,
    "ignore_eos": False,
    "min_tokens": 0,
}


@dataclass(frozen=True)
class StreamOptions:
    """What a stream contains besides the tokens."""

    include_usage: bool = option(False, "end the stream with a chunk that holds the usage")
    include_obfuscation: bool = option(False, "accepted; streams are never padded")


@dataclass(frozen=True)
class SamplingFields:
    """The fields that completions and chat completions have in common."""

    model: str = option(REQUIRED, "id of the model or of a scenario, as /v1/models lists them")
    n: int = option(1, "number of continuations of each prompt", at_least=1, at_most=128)
    temperature: float = option(1.0, "0 takes the likeliest token always", at_least=0, at_most=2)
    top_p: float = option(1.0, "draw from the fewest tokens of this probability", at_least=0, at_most=1)
    top_k: int = option(0, "draw from so many likeliest tokens; 0 and -1 are all", at_least=-1, at_most=2**31)
    min_p: float = option(
        0.0, "leave out tokens less likely than this share of the likeliest", at_least=0, at_most=1
    )
    frequency_penalty: float = option(0.0, "for each time a token was generated", at_least=-2, at_most=2)
    presence_penalty: float = option(0.0, "once if a token was generated", at_least=-2, at_most=2)
    logit_bias: dict[str, float] | None = option(
        None, "added to the logits of ids, from -100, which bans an id, to 100"
    )
    seed: int | None = option(
        None, "seed of the draws; the answer reports the one that was used as x_seed", at_least=0, below=2**63
    )
    stop: str | tuple[str, ...] | None = option(None, "texts that end a continuation and are left out of it")
    stream: bool = option(False, "send the tokens as server-sent events")
    stream_options: StreamOptions | None = option(None, "only with stream")
    return_tokens_as_token_ids: bool = option(False, "name tokens token_id:N in the log-probabilities")

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if self.stream_options is not None and not self.stream:
            yield "stream_options: only allowed with stream: true"
        stops = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        if len(stops) > MOST_STOPS:
            yield f"stop: {len(stops)} texts; at most {MOST_STOPS} are allowed"
        if any(len(text) > MOST_STOP_LETTERS for text in stops):
            yield f"stop: a text has more than {MOST_STOP_LETTERS} characters"
        yield from _bias_problems(self.logit_bias)


@dataclass(frozen=True)
class CompletionFields(SamplingFields):
    """POST /v1/completions."""

    prompt: str | tuple[str, ...] | tuple[int, ...] | tuple[tuple[int, ...], ...] | None = option(
        None, "text, ids, or a list of either; without a prompt a new document is begun"
    )
    best_of: int | None = option(
        None, "generate so many continuations and return the n likeliest", at_least=1, at_most=128
    )
    max_tokens: int = option(16, "longest continuation, in tokens", at_least=0, at_most=2**31)
    logprobs: int | None = option(
        None,
        "report the log-probability of each token and of so many likeliest",
        at_least=0,
        at_most=MOST_LOGPROBS,
    )
    echo: bool = option(False, "begin the text with the prompt")
    task: str | None = option(None, "name of a task's form, which makes the prompt from fields")
    fields: dict[str, str] | None = option(None, "the fields of the task, or those a scenario leaves open")
    examples: tuple[dict[str, str], ...] | None = option(None, "solved examples of the task")

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        yield from super().rules()
        if self.max_tokens == 0 and not self.echo:
            yield "max_tokens: 0 is only allowed with echo: true, which returns the prompt itself"
        if self.best_of is not None and self.best_of < self.n:
            yield f"best_of: {self.best_of} is less than n = {self.n}"
        if self.best_of is not None and self.best_of > self.n and self.stream:
            yield "best_of: the likeliest are only known at the end; leave out stream, or best_of"
        if self.task is not None and self.prompt is not None:
            yield "prompt: a task makes the prompt from its fields; give prompt or task"


@dataclass(frozen=True)
class Part:
    """A part of a message's content."""

    type: str = option(REQUIRED, "only text")
    text: str = option("", "the text")


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: str = option(REQUIRED, "system, developer, user or assistant")
    content: str | tuple[Part, ...] = option("", "text, or a list of parts of type text")
    name: str | None = option(None, "accepted, without effect")


@dataclass(frozen=True)
class ChatFields(SamplingFields):
    """POST /v1/chat/completions."""

    messages: tuple[Message, ...] = option((), "the conversation; its last message is answered")
    max_tokens: int | None = option(
        None, "longest answer, in tokens; without it the rest of the context", at_least=1, at_most=2**31
    )
    max_completion_tokens: int | None = option(
        None, "the newer name of max_tokens, which goes before it", at_least=1, at_most=2**31
    )
    logprobs: bool = option(False, "report the log-probability of each token")
    top_logprobs: int | None = option(
        None, "and those of so many likeliest", at_least=0, at_most=MOST_LOGPROBS
    )
    continue_final_message: bool = option(False, "continue the last message, which is the assistant's")
    add_generation_prompt: bool = option(True, "accepted; the answer always begins a new turn")

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        yield from super().rules()
        if self.top_logprobs is not None and not self.logprobs:
            yield "top_logprobs: only allowed with logprobs: true"
        if isinstance(self.messages, tuple) and not self.messages:
            yield "messages: at least one message is needed"


@dataclass(frozen=True)
class TokenizeFields:
    """POST /tokenize; without a prompt, that of a task is encoded."""

    prompt: str | None = option(None, "the text to encode")
    messages: tuple[Message, ...] | None = option(None, "a conversation, encoded as the chat would")
    model: str | None = option(None, "the scenario of the conversation; all have the same vocabulary")
    continue_final_message: bool = option(False, "see /v1/chat/completions")
    add_generation_prompt: bool = option(True, "accepted; the text always begins a new turn")
    add_special_tokens: bool = option(True, "accepted; the vocabulary adds none")
    return_token_strs: bool = option(False, "return the text of every token as well")
    task: str | None = option(None, "name of a task's form, which makes the text from fields")
    fields: dict[str, str] | None = option(None, "the fields of the task")
    examples: tuple[dict[str, str], ...] | None = option(None, "solved examples of the task")

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if sum(each is not None for each in (self.prompt, self.task, self.messages)) != 1:
            yield "prompt: give one of prompt, task and messages"


@dataclass(frozen=True)
class DetokenizeFields:
    """POST /detokenize."""

    tokens: tuple[int, ...] = option(REQUIRED, "the ids to decode")
    model: str | None = option(None, "accepted; all models have the same vocabulary")


def _bias_problems(bias: dict[str, float] | None) -> Iterator[str]:
    if not isinstance(bias, dict):
        return
    if len(bias) > MOST_BIASES:
        yield f"logit_bias: {len(bias)} entries; at most {MOST_BIASES} are allowed"
    wrong = next((key for key in bias if not (key.isascii() and key.isdigit() and len(key) < 10)), None)
    if wrong is not None:
        yield f"logit_bias: {wrong[:40]!r} is no id; its keys are ids, as /tokenize gives them"
    if any(not -100 <= value <= 100 for value in bias.values()):
        yield "logit_bias: a value lies outside -100 to 100"
