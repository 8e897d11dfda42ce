"""Scores given ids with a trained network, and generates; the one door from evaluation to inference.

Scores are of ids: what texts they come from, and where a text begins to count, is decided by encode_pair and
the tasks.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from mindspore import Tensor

from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.files.shown import shown
from pangu_alpha.inference.load import load_for_inference
from pangu_alpha.inference.nats import NOTHING, Labelled, NatsEngine, Predicted
from pangu_alpha.inference.packing import common_length
from pangu_alpha.inference.text import TextGenerator
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.text.tokenizer import PanguTokenizer

Pair = tuple[Sequence[int], Sequence[int]]


class CopiedNetwork:
    """A network for scoring whose weights are copied from another one, such as a network in training.

    Args:
        config: Of the other network; its dropout is left out.
        tokenizer: Of the other network's data.
        end_of_document: Id between documents in them.
        batch_size: See Scorer.
    """

    fingerprint = ""

    def __init__(
        self, config: ModelConfig, tokenizer: PanguTokenizer, end_of_document: int, batch_size: int
    ) -> None:
        config = replace(config, dropout=0.0)
        self.tokenizer, self.end_of_document, self.context = tokenizer, end_of_document, config.seq_length
        self._model = PanguAlpha(config, seed=None, operators=operators_for(config, decoding=False))
        self._engine = NatsEngine(self._model, end_of_document, batch_size)

    def take(self, model: PanguAlpha) -> None:
        """Copies the values of all parameters that the network has."""
        values = dict(model.parameters_and_names())
        for name, parameter in self._model.parameters_and_names():
            parameter.set_data(Tensor(values[name].asnumpy(), parameter.dtype))

    def predict(self, pairs: Sequence[Pair]) -> list[Predicted]:
        """See Scorer."""
        firsts = [common_length(prefix, text) for prefix, text in pairs]
        texts = [
            Labelled(tuple(map(int, text)), first) for (_, text), first in zip(pairs, firsts, strict=True)
        ]
        return self._engine.predict(texts)

    def generate(
        self,
        prompts: Sequence[str],
        limit: int,
        stop: Sequence[str] = (),
        sampling: SamplingConfig | None = None,
    ) -> list[str]:
        """Not possible: generation needs caches of its own."""
        raise NotImplementedError


class Scorer:
    """A trained network that scores ids and continues texts.

    The nats of a pair are a function of the pairs in the call and of the batch size: they have the same bits
    in any order and whatever was scored before. Among other pairs, or with another batch size, they differ by
    rounding, far below 1e-4 nats.

    Args:
        checkpoint: A run's output folder or a checkpoint of any form.
        batch_size: Number of texts computed together: a pass has 64 tokens for each.
        vocabulary: The vocabulary; None takes the one beside the checkpoint.
        options: What the checkpoint of another program may not state itself.

    Raises:
        ValueError: Checkpoint or vocabulary are missing, damaged, or do not fit each other.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        batch_size: int = 8,
        vocabulary: str | Path | None = None,
        options: OpenOptions | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} must be at least 1")
        self._loaded = load_for_inference(checkpoint, vocabulary, options=options, decoding=False)
        self._batch_size = batch_size
        self._generator: TextGenerator | None = None

    @property
    def checkpoint(self) -> Path:
        """Folder or file of the weights."""
        return self._loaded.checkpoint

    @property
    def step(self) -> int:
        """Number of optimizer steps, if the checkpoint records it, else 0."""
        return self._loaded.step

    @property
    def tokenizer(self) -> PanguTokenizer:
        """The tokenizer that the network was trained with."""
        return self._loaded.tokenizer

    @property
    def end_of_document(self) -> int:
        """Id between documents. It begins a text without context, so that its first id can be predicted."""
        return self._loaded.end_of_document

    @property
    def context(self) -> int:
        """Largest number of ids that are read at once, the predicted last one not counted."""
        return self._loaded.model.config.seq_length

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of network, weights, vocabulary and end of document, in hexadecimal.

        Two forms of one checkpoint have the same. Files of scores should record it.
        """
        digest = hashlib.sha256(repr((self._loaded.model.config, self.end_of_document)).encode())
        digest.update(self.tokenizer.digest.encode())
        for name, parameter in sorted(self._loaded.model.parameters_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(parameter.asnumpy()).data)
        return digest.hexdigest()

    def nats(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        """Computes -log p of the ids of each text that follow its prefix; see `predict`.

        Returns:
            For each pair float32 [n], the nats of the ids after the common beginning of prefix and text.
        """
        return [each.nats for each in self.predict(pairs)]

    def predict(self, pairs: Sequence[Pair]) -> list[Predicted]:
        """Computes how well each text is predicted after its prefix.

        Beginnings that texts share are computed once, equal texts once.

        Args:
            pairs: Ids of a prefix and of the whole text. They need not agree to the end of the prefix: all
                ids of the text after the common beginning count.

        Raises:
            ValueError: Lists all pairs without a common beginning, with ids outside the vocabulary, or with
                more ids than the context holds; or the network's results are not finite.
        """
        texts = [tuple(map(int, text)) for _, text in pairs]
        firsts = [common_length(prefix, text) for (prefix, _), text in zip(pairs, texts, strict=True)]
        self._check(texts, firsts)
        wanted: dict[tuple[int, ...], int] = {}  # of each different text, the first id that any pair counts
        for ids, first in zip(texts, firsts, strict=True):
            if first < len(ids):
                wanted[ids] = min(first, wanted.get(ids, first))
        found = self._engine.predict([Labelled(*each) for each in wanted.items()])
        self._check_finite(found)
        known = dict(zip(wanted, found, strict=True))
        return [
            Predicted(*(each[first - wanted[ids] :] for each in known[ids])) if ids in wanted else NOTHING
            for ids, first in zip(texts, firsts, strict=True)
        ]

    def generate(
        self,
        prompts: Sequence[str],
        limit: int,
        stop: Sequence[str] = (),
        sampling: SamplingConfig | None = None,
    ) -> list[str]:
        """Continues texts.

        Args:
            prompts: Texts. The beginning of one that does not leave room for the new tokens is cut off, and a
                warning is logged.
            limit: Most new tokens.
            stop: Texts that end a continuation and are left out of it, as a user writes them; what the
                vocabulary makes of them is looked for.
            sampling: How to choose tokens; None always takes the likeliest.

        Raises:
            ValueError: Lists all prompts that are empty; or a stop text cannot be generated.
        """
        how = replace(sampling or SamplingConfig(greedy=True), max_new_tokens=limit, stop=tuple(stop))
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))  # the longest first
        generator = self._text_generator()
        generator.generator.decoder.caches.attach()
        try:
            done = generator.complete([prompts[n] for n in order], how, truncate_left=True)
        finally:
            generator.generator.decoder.caches.detach()
        texts = [""] * len(prompts)
        for number, completion in zip(order, done, strict=True):
            texts[number] = completion.text
        return texts

    @functools.cached_property
    def _engine(self) -> NatsEngine:
        return NatsEngine(self._loaded.model, self.end_of_document, self._batch_size)

    def _text_generator(self) -> TextGenerator:
        if self._generator is None:
            self._generator = self._loaded.text_generator(self._batch_size)
            self._generator.generator.decoder.caches.detach()
        return self._generator

    def _check(self, texts: Sequence[tuple[int, ...]], firsts: Sequence[int]) -> None:
        size, problems = self._loaded.model.config.vocab_size, []
        for number, (text, first) in enumerate(zip(texts, firsts, strict=True)):
            if first == 0:
                problems.append(
                    f"pair {number}: prefix and text have no common beginning to predict from; begin both "
                    f"with the end of document, {self.end_of_document}"
                )
            elif len(text) > self.context + 1:
                problems.append(
                    f"pair {number}: {len(text)} ids, but at most {self.context + 1} can be scored with a "
                    f"context of {self.context}; shorten it"
                )
            elif min(text) < 0 or max(text) >= size:
                problems.append(f"pair {number}: holds ids outside the vocabulary of {size}")
        if problems:
            raise ValueError("\n".join(problems))

    def _check_finite(self, found: Sequence[Predicted]) -> None:
        if not all(np.isfinite(each.nats).all() for each in found):
            raise ValueError(
                f"{shown(self.checkpoint)}: the nats are not finite: its weights hold NaN or are too large; "
                "use an earlier checkpoint of the run"
            )
