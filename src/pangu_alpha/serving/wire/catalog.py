"""The models that clients may name: the network itself, and one for each scenario."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pangu_alpha.config.schema import nearest
from pangu_alpha.serving.scenarios import Scenario
from pangu_alpha.serving.wire.errors import ApiError
from pangu_alpha.serving.wire.tokens import ModelFacts

_BASE = {
    "en": "A base language model: it continues text, and follows no instructions.",
    "zh": "基础语言模型：只会续写，不听从指令。",
}


@dataclass(frozen=True)
class Catalog:
    """What /v1/models lists.

    Args:
        name: Id of the network.
        scenarios: By their names.
        created: Time of the server's start, in seconds since 1970.
    """

    name: str
    scenarios: Mapping[str, Scenario]
    created: int

    def scenario(self, model: str, allowed: Collection[str] = ()) -> Scenario | None:
        """Returns the scenario of a model's id; None for the network itself.

        Args:
            allowed: Names of the only scenarios that the client's key may use; empty allows everything.

        Raises:
            ApiError: There is no such model (404), or the key may not use it (403).
        """
        base, _, name = model.partition("/")
        if model != self.name and (base != self.name or name not in self.scenarios):
            known = nearest(model, self.ids(allowed))
            raise ApiError(
                404, f"model: there is none called {model[:80]!r}; {known}", "model_not_found", "model"
            )
        if allowed and name not in allowed:
            known = ", ".join(self.ids(allowed))
            raise ApiError(403, f"model: this key may only use {known}", "model_not_allowed", "model")
        return self.scenarios[name] if name else None

    def listed(self, facts: ModelFacts, allowed: Collection[str] = ()) -> list[dict[str, Any]]:
        """The entries of /v1/models."""
        return [self.entry(each, facts) for each in self.ids(allowed)]

    def entry(self, model: str, facts: ModelFacts) -> dict[str, Any]:
        """The entry of a model that exists."""
        common = {
            "id": model,
            "object": "model",
            "created": self.created,
            "owned_by": "pangu_alpha",
            "kind": "base",
            "max_model_len": facts.context,
            "max_samples": facts.slots,
        }
        if model == self.name:
            return {**common, "description": _BASE}
        scenario = self.scenarios[model.partition("/")[2]]
        return {
            **common,
            "kind": "scenario",
            "parent": self.name,
            "title": scenario.title,
            "description": scenario.description,
            "task": scenario.task,
            "fields": list(scenario.open_fields),
            "greeting": scenario.greeting,
            "sampling": scenario.sampling.given(),
        }

    def names(self, allowed: Collection[str] = ()) -> list[str]:
        """The names of the scenarios that a client may use."""
        return [name for name in self.scenarios if not allowed or name in allowed]

    def ids(self, allowed: Collection[str] = ()) -> list[str]:
        """The ids of the models that a client may use."""
        bound = [f"{self.name}/{name}" for name in self.names(allowed)]
        return bound if allowed else [self.name, *bound]
