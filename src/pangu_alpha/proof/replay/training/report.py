"""The result of replaying a training run, and the differences that pass; NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pangu_alpha.config.schema import to_mapping
from pangu_alpha.proof.replay.compare import Bounds, Difference, difference_lines


@dataclass(frozen=True)
class TrainingBounds(Bounds):
    """Bounds of a training run; `gradient` applies to the first update of the run.

    Args:
        later_gradient: Like gradient, for the first update after a resume. By then, the rounding of all
            earlier steps has made the weights differ; so far that has not needed more than `gradient` allows.
        scale: Relative difference of the loss scale.
    """

    later_gradient: float = 1e-5
    scale: float = 0.0

    @classmethod
    def of(cls, dtype: str) -> TrainingBounds:
        """The bounds for a network that computes in a type; see Bounds.of."""
        bounds = super().of(dtype)
        return replace(bounds, later_gradient=bounds.gradient)


@dataclass(frozen=True)
class LegReport:
    """The result of a leg.

    Args:
        plan: Its plan, in words.
        first: First step, counted from 1.
        last: Last step that was compared.
        codes: See Ended.
        losses: Mean loss at each step on rank 0, in nats.
        skipped: Steps whose update was skipped, counted from 1.
        scales: Loss scale at each step.
        seconds: Seconds from start to end.
    """

    plan: str
    first: int
    last: int
    codes: tuple[int | None, ...]
    losses: tuple[float, ...]
    skipped: tuple[int, ...]
    scales: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class TrainingReport:
    """The result of replaying a run.

    Args:
        legs: Reports of the legs, in order.
        differences: The largest difference of each kind.
        first: The first difference above its bound; "" if there is none.
        seconds: Seconds by phase.
    """

    legs: tuple[LegReport, ...]
    differences: tuple[Difference, ...]
    first: str
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every difference is within its bound."""
        return all(each.passed for each in self.differences)

    def difference(self, kind: str) -> Difference:
        """The largest difference of a kind."""
        return next(each for each in self.differences if each.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"passed": self.passed, **to_mapping(asdict(self))}

    def table(self) -> str:
        """The verdict, and a line for every leg and for every kind of difference."""
        took = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in self.seconds.items())
        lines = [f"training replayed: {'pass' if self.passed else 'FAIL'} ({took})"]
        for leg in self.legs:
            codes = " ".join("ended" if code is None else str(code) for code in leg.codes)
            lines.append(
                f"  steps {leg.first} to {leg.last} on {leg.plan}: exit codes {codes}, loss "
                f"{leg.losses[0]:.6f} to {leg.losses[-1]:.6f}, loss scale {leg.scales[0]:g} to "
                f"{leg.scales[-1]:g}, skipped {', '.join(map(str, leg.skipped)) or 'none'}"
            )
        lines += difference_lines(self.differences)
        if self.first:
            lines.append(f"first difference: {self.first}")
        return "\n".join(lines)
