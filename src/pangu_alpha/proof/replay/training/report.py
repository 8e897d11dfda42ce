"""What the replay of a training run found, and what passes; numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pangu_alpha.config.schema import to_mapping
from pangu_alpha.proof.replay.compare import Bounds, Difference, difference_lines


@dataclass(frozen=True)
class TrainingBounds(Bounds):
    """Bounds of a training run; `gradient` is of the first update of the run.

    Args:
        later_gradient: As gradient, of the first update after a resume, where the weights have parted by the
            rounding of all steps before; that has not needed more than `gradient` allows.
        scale: Of the loss scale, relative.
    """

    later_gradient: float = 1e-5
    scale: float = 0.0

    @classmethod
    def of(cls, dtype: str) -> TrainingBounds:
        """What passes for a network that computes in a type; see Bounds.of."""
        bounds = super().of(dtype)
        return replace(bounds, later_gradient=bounds.gradient)


@dataclass(frozen=True)
class LegReport:
    """What became of a leg.

    Args:
        plan: Its plan in words.
        first: Step that it began with, from 1.
        last: Last step that was compared.
        codes: See Ended.
        losses: Mean loss at each step on rank 0, nats.
        skipped: Steps whose update was skipped, from 1.
        scales: Loss scale at each step.
        seconds: From start to end.
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
    """What the replay of a run found.

    Args:
        legs: In their order.
        differences: The largest of each kind.
        first: The first difference above its bound, "" if there is none.
        seconds: By phase.
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
        """Plain values."""
        return {"passed": self.passed, **to_mapping(asdict(self))}

    def table(self) -> str:
        """Verdict, a line for every leg and for every kind of difference."""
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
