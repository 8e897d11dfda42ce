"""Continues prompts token by token.

Knows ids only. Prompts are processed in groups as large as the decoder's number of rows; a prompt's
continuation does not depend on the other prompts in its group.
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
    """A new token of one prompt, or the end of its continuation; either `token` or `reason` is None.

    Args:
        prompt: Index of the prompt.
        token: The new id.
        reason: Why the continuation ended: "stop" if a stop id or text was generated, "length" after
            max_new_tokens, "context" if there is no room left.
    """

    prompt: int
    token: int | None
    reason: Reason | None = None


class Continuation(NamedTuple):
    """All new ids after one prompt, and why the continuation ended (see Event)."""

    ids: tuple[int, ...]
    reason: Reason


@dataclass
class _Row:
    prompt: int
    sampler: Sampler
    ids: list[int] = field(default_factory=list)
    reason: Reason | None = None


class Generator:
    """Generates continuations with a model.

    Args:
        model: Its attentions get caches, which `close` removes.
        end_of_document: Id between documents; it ends a continuation.
        batch_size: Number of prompts computed together.
        context: Largest number of ids of a prompt and its continuation together; None is the model's sequence
            length.
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
        """Continues prompts, and yields every token as soon as it is chosen.

        The n-th copy of a prompt uses the n-th random stream, so repeat a prompt to get several samples.

        Args:
            prompts: Ids of each prompt.
            sampling: How to choose tokens; its stop texts are left to the caller (see `finished`).
            finished: Called with (index of the prompt, its new ids) before each token is yielded; True makes
                that token the last one, with the reason "stop".

        Yields:
            Event: One for every token, and one with the reason at the end of every prompt.

        Raises:
            ValueError: Lists all prompts that are empty, too long or hold ids outside the vocabulary. It is
                raised by the call itself, not by the first iteration.
        """
        self._check(prompts)
        rows: list[_Row] = []
        copies: Counter[tuple[int, ...]] = Counter()
        for number, prompt in enumerate(map(tuple, prompts)):
            rows.append(_Row(number, Sampler(sampling, prompt, self._banned, copies[prompt])))
            copies[prompt] += 1
        return self._run(prompts, rows, sampling.max_new_tokens, finished)

    def close(self) -> None:
        """Removes the caches from the model."""
        self.decoder.close()

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        problems, seen = [], set()
        for number, prompt in enumerate(map(tuple, prompts)):
            if prompt in seen:  # another sample of a prompt that has been checked
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
        size = self.decoder.rows
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
