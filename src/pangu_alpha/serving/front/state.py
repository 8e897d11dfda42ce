"""What all requests of a server share."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pangu_alpha import __version__
from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.serving.access.admission import Admission
from pangu_alpha.serving.access.buckets import Limiter
from pangu_alpha.serving.access.keys import Keys
from pangu_alpha.serving.front.link import Link
from pangu_alpha.serving.front.metrics import Metrics
from pangu_alpha.serving.scenarios import Scenario
from pangu_alpha.serving.wire.catalog import Catalog
from pangu_alpha.serving.wire.errors import ApiError
from pangu_alpha.serving.wire.tokens import ModelFacts
from pangu_alpha.text.tokenizer import PanguTokenizer

logger = logging.getLogger(__name__)

_SILENT = 30.0  # seconds without a sign of life after which an engine counts as stuck
_LOADING_RETRY = 10.0  # seconds
_ROOM = 24  # tokens that a scenario's prompt must leave


class State:
    """A server's configuration, keys, models, queue and engine."""

    def __init__(self, config: ServeConfig, keys: Keys, scenarios: Mapping[str, Scenario]) -> None:
        self.config = config
        self.keys = keys
        self.catalog = Catalog(config.model_name, scenarios, int(time.time()))
        self.limiter = Limiter(time.monotonic)
        self.admission = Admission(config.slots, config.queue, config.queue_tokens)
        self.metrics = Metrics()
        self.draining = asyncio.Event()
        self.cut = asyncio.Event()  # what still runs is to end now
        self.link: Link | None = None
        self._facts: ModelFacts | None = None
        self.fingerprint = ""
        self.cut_requests = 0

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model.

        Raises:
            ApiError: The engine has not opened it yet (503).
        """
        if self._facts is None:
            raise ApiError(503, "the model is being loaded", "loading", retry_after=_LOADING_RETRY)
        return self._facts

    def greeted(self, hello: Mapping[str, Any]) -> Sequence[Sequence[int]]:
        """Takes the engine's description; returns the prefixes of scenarios, the longest first."""
        if self._facts is None:
            self._facts = ModelFacts(
                PanguTokenizer(hello["vocabulary"]),
                hello["vocab_size"],
                hello["end_of_document"],
                hello["context"],
                hello["slots"],
            )
            _ = self._facts.twins  # reads the text of every id, once and before anybody waits for it
            shape = f"{hello['name']} {hello['slots']} {hello['context']} {self._facts.tokenizer.digest}"
            self.catalog = replace(self.catalog, scenarios=self._fitting(self._facts))
            self.fingerprint = f"pangu-{__version__}-{hashlib.sha256(shape.encode()).hexdigest()[:12]}"
        return self.prefixes(self._facts)

    def _fitting(self, facts: ModelFacts) -> dict[str, Scenario]:
        """The scenarios whose prompts leave room for a question and its answer."""
        found = {}
        for name, scenario in self.catalog.scenarios.items():
            size = len(facts.encode(scenario.head()))
            if size + _ROOM <= facts.context:
                found[name] = scenario
            else:
                logger.warning(
                    "scenario %s is left out: its prompt takes %d tokens, and the context holds %d",
                    name,
                    size,
                    facts.context,
                )
        return found

    def prefixes(self, facts: ModelFacts) -> list[list[int]]:
        """The ids that every prompt of a scenario begins with, for each scenario, the longest first."""
        heads = (scenario.head() for scenario in self.catalog.scenarios.values())
        # A prompt's ids up to a line feed do not depend on what follows it.
        whole = (head[: head.rfind("\n") + 1] for head in heads)
        found = [facts.encode(text) for text in whole if text]
        return sorted((ids for ids in found if len(ids) < facts.context), key=len, reverse=True)

    def require_ready(self) -> Link:
        """Returns the engine's link.

        Raises:
            ApiError: No new work is taken now (503).
        """
        if self.draining.is_set():
            raise ApiError(
                503,
                "the server is about to end; ask another one, or later",
                "draining",
                retry_after=self.config.drain_timeout + 1,
                headers={"Connection": "close"},
            )
        if self.link is None or self.link.state == "loading":
            raise ApiError(503, "the model is being loaded", "loading", retry_after=_LOADING_RETRY)
        if self.link.state != "ready":
            raise ApiError(
                503,
                "the engine has ended and is being started again",
                "engine_lost",
                retry_after=_LOADING_RETRY,
            )
        return self.link

    def readiness(self) -> tuple[bool, str]:
        """Whether new work is welcome, and the reason in one word."""
        if self.draining.is_set():
            return False, "draining"
        if self.link is None or self.link.state != "ready":
            return False, self.link.state if self.link else "loading"
        if self.link.silent > _SILENT:
            return False, "stuck"
        return (False, "queue_full") if self.admission.full else (True, "ready")

    @property
    def alive(self) -> bool:
        """Whether the engine's loop moves; while it loads, that it is loading is enough."""
        return self.link is not None and self.link.state != "engine_lost" and self.link.silent <= _SILENT

    def load(self) -> dict[str, Any]:
        """What runs and what waits."""
        beat = self.link.beat if self.link else {}
        age = beat.get("last_token_age")
        return {
            "running": beat.get("running", 0),
            "waiting": self.admission.waiting,
            "slots": self.config.slots,
            "last_token_age": None if age is None else round(age, 3),
        }
