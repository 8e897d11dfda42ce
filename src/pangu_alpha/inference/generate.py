"""Continuations of prompts, token by token.

Knows ids only. Prompts are taken in groups of as many as the decoder has rows; a prompt's continuation does
not depend on its neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.inference.decoder import Decoder
from pangu_alpha.inference.sampling import Sampler
from pangu_alpha.model.pangu import PanguAlpha

Reason = Literal["stop", "length", "context"]
Finished = Callable[[int, Sequence[int]], bool]


class Event(NamedTuple):
    """A new token of one prompt, or the end of its continuation; the other of the two is None.

    Args:
        prompt: Number of the prompt.
        token: The new id.
        reason: Why it ended: "stop" a stop id or text came up, "length" max_new_tokens were generated,
            "context" there is no room left.
    """

    prompt: int
    token: int | None
    reason: Reason | None = None


class Continuation(NamedTuple):
    """What follows one prompt.

    Args:
        ids: All new ids.
        reason: Why it ended; see Event.
    """

    ids: tuple[int, ...]
    reason: Reason


@dataclass
class _Row:
    prompt: int
    sampler: Sampler
    ids: list[int] = field(default_factory=list)
    reason: Reason | None = None


class Generator:
    """Generates with a model.

    Args:
        model: Its attentions get caches, until `close`.
        end_of_document: Id between documents; ends a continuation.
        batch_size: Prompts computed together.
        context: Most ids of a prompt and its continuation together; the model's sequence length by default.
        banned: Ids that are never generated.

    Raises:
        ValueError: See Decoder.
    """

    def __init__(
        self,
        model: PanguAlpha,
        end_of_document: int,
        batch_size: int = 1,
        context: int | None = None,
        banned: Collection[int] = (),
    ) -> None:
        self.decoder = Decoder(model, end_of_document, batch_size, context)
        self._stop_ids = frozenset({end_of_document})
        self._banned = np.zeros(model.config.vocab_size, bool)
        self._banned[list(banned)] = True
        assert not self._banned[end_of_document], "a continuation could not end"

    def generate(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> list[Continuation]:
        """Continues prompts to their ends; see `stream`."""
        ids: list[list[int]] = [[] for _ in prompts]
        reasons: list[Reason] = ["stop"] * len(prompts)
        for event in self.stream(prompts, sampling):
            if event.reason is not None:
                reasons[event.prompt] = event.reason
            elif event.token is not None:
                ids[event.prompt].append(event.token)
        return [Continuation(tuple(row), reason) for row, reason in zip(ids, reasons, strict=True)]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        finished: Finished = lambda prompt, ids: False,
    ) -> Iterator[Event]:
        """Continues prompts, giving out every token as it comes.

        The n-th copy of a prompt gets the n-th random stream, so repeat a prompt to have several samples.

        Args:
            prompts: Ids of each.
            sampling: How to choose tokens; its stop texts are the caller's business.
            finished: Asked with (number of the prompt, its new ids) before each token is given out;
                True makes it the last and the reason "stop".

        Yields:
            Event: one for every token, and one with the reason at the end of every prompt.

        Raises:
            ValueError: All prompts that are empty, too long or hold ids outside the vocabulary; at once, not
                at the first token.
        """
        self._check(prompts)
        rows: list[_Row] = []
        copies: Counter[tuple[int, ...]] = Counter()
        for number, prompt in enumerate(map(tuple, prompts)):
            rows.append(_Row(number, Sampler(sampling, prompt, self._banned, copies[prompt])))
            copies[prompt] += 1
        return self._run(prompts, rows, sampling.max_new_tokens, finished)

    def close(self) -> None:
        """Takes the caches off the model again."""
        self.decoder.close()

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        problems, seen = [], set()
        for number, prompt in enumerate(map(tuple, prompts)):
            if prompt in seen:  # another sample of a prompt that was looked at
                continue
            seen.add(prompt)
            if not prompt:
                problems.append(
                    f"prompt {number}: empty, or only of characters that the vocabulary drops, such as tabs; "
                    "give some text, or the end-of-document id to begin a document"
                )
            elif len(prompt) > self.decoder.context:
                problems.append(
                    f"prompt {number}: {len(prompt)} tokens, but the context holds {self.decoder.context}; "
                    "shorten it, or let its beginning be cut off (--truncate-left)"
                )
            elif min(prompt) < 0 or max(prompt) >= self._banned.size:
                problems.append(f"prompt {number}: holds ids outside the vocabulary of {self._banned.size}")
        if problems:
            raise ValueError("\n".join(problems))

    def _run(
        self, prompts: Sequence[Sequence[int]], rows: list[_Row], longest: int, finished: Finished
    ) -> Iterator[Event]:
        size = self.decoder.batch_size
        for start in range(0, len(rows), size):
            group = rows[start : start + size]
            logits = self.decoder.prefill([prompts[row.prompt] for row in group])
            while True:
                for place, row in enumerate(group):
                    if row.reason is None:
                        yield from self._extend(row, place, logits[place], longest, finished)
                active = [row.reason is None for row in group] + [False] * (size - len(group))
                if not any(active):
                    break
                tokens = [row.ids[-1] if row.ids else 0 for row in group] + [0] * (size - len(group))
                logits = self.decoder.step(tokens, active)

    def _extend(
        self, row: _Row, place: int, logits: np.ndarray, longest: int, finished: Finished
    ) -> Iterator[Event]:
        token = row.sampler(logits)
        if token in self._stop_ids:
            row.reason = "stop"
        else:
            row.ids.append(token)
            if finished(row.prompt, row.ids):
                row.reason = "stop"
            elif len(row.ids) >= longest:
                row.reason = "length"
            elif not self.decoder.has_room(place):
                row.reason = "context"
            yield Event(row.prompt, token)
        if row.reason is not None:
            yield Event(row.prompt, None, row.reason)
