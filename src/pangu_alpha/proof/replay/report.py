"""The result of a replay, as a text table and as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pangu_alpha.config.schema import to_mapping
from pangu_alpha.proof.replay.compare import Difference, Recipe, difference_lines

_SHOWN = 8  # misplaced parameters that a table lists at most


@dataclass(frozen=True)
class ReplayReport:
    """The result of a replay.

    Args:
        ranks: Number of processes.
        differences: The largest difference of each kind.
        first: The first difference above its bound; "" if there is none.
        placement: Parameters that MindSpore placed differently from the sharding table.
        losses: Mean loss of one device at each step, in nats.
        collectives: Collectives in a step, on the rank with most.
        seconds: Seconds by phase.
    """

    name: str
    ranks: int
    recipe: Recipe
    differences: tuple[Difference, ...]
    first: str
    placement: tuple[str, ...]
    losses: tuple[float, ...]
    collectives: int
    seconds: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether every difference is within its bound and every parameter is in its place."""
        return not self.placement and all(each.passed for each in self.differences)

    def difference(self, kind: str) -> Difference:
        """The largest difference of a kind."""
        return next(each for each in self.differences if each.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"passed": self.passed, **to_mapping(asdict(self))}

    def table(self) -> str:
        """The verdict, and a line for every kind of difference."""
        verdict = "pass" if self.passed else "FAIL"
        rates = ", ".join(f"{rate:.3g}" for rate in self.recipe.rates[self.recipe.done :])
        took = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in self.seconds.items())
        lines = [
            f"{self.name}: {verdict}. {self.ranks} processes, {self.recipe.steps} steps, "
            f"learning rate {rates}, {self.collectives} collectives a step ({took})",
            "losses of one device: " + " ".join(f"{loss:.7f}" for loss in self.losses),
            *difference_lines(self.differences),
        ]
        lines += [f"  placed otherwise: {line}" for line in self.placement[:_SHOWN]]
        if len(self.placement) > _SHOWN:
            lines.append(f"  placed otherwise: {len(self.placement) - _SHOWN} more")
        if self.first:
            lines.append(f"first difference: {self.first}")
        return "\n".join(lines)
