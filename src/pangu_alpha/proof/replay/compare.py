"""Compares what the ranks of a plan computed with what one device computed; NumPy only.

Kinds of differences and how they are measured:
    loss, norm     |a - b| / |b|, at every step, on every rank that has it
    skip           1 for a step that one applied and the other skipped, else 0
    gradient       of the first compared step that the reference applies, after clipping: what is new in the
                   first moment / (1 - beta1); difference / largest |g| of the tensor. Skipped steps before
                   it leave the weights unchanged, so there is nothing to compare
    weight, moment after the last step: difference / largest movement of the tensor since the start
    key bias       its true gradient is 0, so all of it is rounding: |movement| / (steps * learning rate)
    replica        between ranks that hold the same element; as weight and moment
    padding        rows of the table beyond the vocabulary, and sums of gradients after the update; all are 0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import numpy as np

from pangu_alpha.proof.replay.slices import Gathered, Piece, Region, gather

MOMENT1, MOMENT2, SUM = "adam_m.", "adam_v.", "accu_grads."
AnyBounds = TypeVar("AnyBounds", bound="Bounds")


@dataclass(frozen=True)
class Bounds:
    """Largest differences that pass, measured as described above; dimensionless.

    Args:
        loss: Relative difference of the loss.
        norm: Relative difference of the gradient norm.
        skip: Steps that only one of the two applied.
        gradient: In units of the largest gradient of the tensor.
        weight: In units of the largest movement of the tensor.
        moment: In units of the largest movement of the tensor.
        key_bias: Movement of the key's bias, in learning rates per step.
        replica: Between ranks that hold the same element, in units of the largest movement of the tensor.
        padding: Largest absolute value of what must be 0.
    """

    loss: float = 1e-5
    norm: float = 1e-5
    skip: float = 0.0
    gradient: float = 1e-5
    weight: float = 1e-4
    moment: float = 1e-4
    key_bias: float = 1.0
    replica: float = 1e-4
    padding: float = 0.0

    @classmethod
    def of(cls: type[AnyBounds], dtype: str) -> AnyBounds:
        """The bounds for a network that computes in a type, compared with one device in the same type.

        Partial sums are rounded to the type before they are added up over ranks. Float16 keeps 11 bits where
        float32 keeps 24: correct plans differed by up to 2e-4 in loss and norm, 7e-3 in gradients, 5e-3 in
        moments and 4e-2 in weights. Replicas are as equal as in float32.

        Args:
            dtype: "float32" or "float16".
        """
        if dtype == "float32":
            return cls()
        assert dtype == "float16", dtype
        return cls(loss=1e-3, norm=1e-3, gradient=1e-2, weight=0.1, moment=1e-2)


@dataclass(frozen=True)
class Difference:
    """The largest difference of one kind.

    Args:
        kind: One of the fields of Bounds.
        value: The difference, measured as its kind demands.
        bound: Largest difference that passes.
        where: Step, tensor, rank and element.
    """

    kind: str
    value: float
    bound: float
    where: str

    @property
    def ratio(self) -> float:
        """Value over bound; inf for NaN, and for any value above a bound of 0."""
        if np.isnan(self.value):
            return np.inf
        if self.bound == 0.0:
            return np.inf if self.value > 0.0 else 0.0
        return self.value / self.bound

    @property
    def passed(self) -> bool:
        """Whether it is within its bound."""
        return self.ratio <= 1.0


@dataclass
class Run:
    """What the ranks of a plan computed.

    Args:
        states: The values of every rank that worker.record stored.
        regions: For every rank, which part of each parameter, moment and sum it holds.
        shapes: Whole shape of each of them, including padding.
        last_stage: Ranks that know the loss.
    """

    states: Mapping[int, Mapping[str, np.ndarray]]
    regions: Mapping[int, Mapping[str, Region]]
    shapes: Mapping[str, tuple[int, ...]]
    last_stage: tuple[int, ...]

    def whole(self, step: int, name: str) -> Gathered:
        """A tensor after a step, assembled from all ranks that hold parts of it."""
        pieces = [
            Piece(rank, regions[name], self.states[rank][f"{step}/state/{name}"])
            for rank, regions in sorted(self.regions.items())
            if name in regions
        ]
        return gather(self.shapes[name], pieces)


@dataclass(frozen=True)
class Recipe:
    """The quantities to which bounds refer.

    Args:
        steps: Number of steps compared.
        rates: Learning rate of every step since the initial values.
    """

    steps: int
    rates: tuple[float, ...]
    beta1: float

    @property
    def done(self) -> int:
        """Number of steps before the first that is compared."""
        return len(self.rates) - self.steps


@dataclass
class Comparison:
    """Collects differences and keeps the largest of each kind.

    Args:
        largest: The largest difference, by kind.
        first: Description of the first difference above its bound; "" if there is none.
    """

    bounds: Bounds
    largest: dict[str, Difference] = field(default_factory=dict)
    first: str = ""

    def note(self, kind: str, value: float, where: str) -> None:
        """Takes one difference into account."""
        found = Difference(kind, float(value), asdict(self.bounds)[kind], where)
        held = self.largest.get(kind)
        if (
            held is None
            or found.ratio > held.ratio
            or (found.ratio == held.ratio and found.value > held.value)
        ):
            self.largest[kind] = found
        if not found.passed and not self.first:
            self.first = f"{where} ({kind}: {value:.3g}, bound {found.bound:.3g})"


def compare(
    run: Run,
    reference: Mapping[str, np.ndarray],
    initial: Mapping[str, np.ndarray],
    recipe: Recipe,
    bounds: Bounds,
) -> Comparison:
    """Compares all steps of a plan's run with one device's.

    Args:
        reference: The values that one device's run stored.
        initial: Initial value of every parameter.
    """
    found = Comparison(bounds)
    applied = (step for step in range(recipe.steps) if reference[f"{step}/applied"])
    updated = next(applied, None)
    for step in range(recipe.steps):
        _scalars(found, run, reference, step, recipe)
        if step == updated:
            for name in initial:
                _gradient(found, run, reference, (step, name), recipe)
        for name in run.shapes:
            # Bounds apply to the state after the last step; before that, only sums must be cleared.
            if name.startswith(SUM) or step == recipe.steps - 1:
                _state(found, run, reference, initial, (step, name), recipe)
    return found


def _scalars(
    found: Comparison, run: Run, reference: Mapping[str, np.ndarray], step: int, recipe: Recipe
) -> None:
    for rank, states in sorted(run.states.items()):
        where = f"{_named(step, recipe)}, rank {rank}"
        skipped = bool(states[f"{step}/applied"]) != bool(reference[f"{step}/applied"])
        found.note("skip", float(skipped), where)
        found.note("norm", _relative(states[f"{step}/norm"], reference[f"{step}/norm"]), where)
        if rank in run.last_stage:
            found.note("loss", _relative(states[f"{step}/loss"], reference[f"{step}/loss"]), where)


def _gradient(
    found: Comparison,
    run: Run,
    reference: Mapping[str, np.ndarray],
    place: tuple[int, str],
    recipe: Recipe,
) -> None:
    step, name = place
    if is_key_bias(name):
        return
    moment, kept = MOMENT1 + name, recipe.beta1
    expected, whole = reference[f"{step}/state/{moment}"], run.whole(step, moment)
    values = _cut(whole.values, expected)
    if recipe.done + step:
        expected = expected - kept * reference[f"{step - 1}/state/{moment}"]
        values = values - kept * _cut(run.whole(step - 1, moment).values, expected)
    difference = (values - expected) / (1 - kept)
    largest = np.abs(expected).max() / (1 - kept)
    _note_largest(found, "gradient", difference, largest, (_named(step, recipe), name, whole))


def _state(
    found: Comparison,
    run: Run,
    reference: Mapping[str, np.ndarray],
    initial: Mapping[str, np.ndarray],
    place: tuple[int, str],
    recipe: Recipe,
) -> None:
    step, name = place
    whole, when = run.whole(step, name), _named(step, recipe)
    if name.startswith(SUM):
        found.note("padding", _largest(whole.values), f"{when}, {name} after the update")
        return
    expected = reference[f"{step}/state/{name}"]
    values = _cut(whole.values, expected)
    found.note("padding", _largest(whole.values[len(expected) :]), f"{when}, {name}, added rows")
    start = initial.get(name, np.zeros_like(expected))
    if is_key_bias(name):
        if name in initial:
            moved = max(np.abs(values - start).max(), np.abs(expected - start).max())
            found.note("key_bias", moved / sum(recipe.rates), f"{when}, {name}")
        return
    movement = np.abs(expected - start).max()
    kind = "weight" if name in initial else "moment"
    _note_largest(found, kind, values - expected, movement, (when, name, whole))
    spread = _ratio(whole.spread, movement)
    found.note("replica", spread, f"{when}, {name}, rank {whole.spread_rank}")


def _named(step: int, recipe: Recipe) -> str:
    """The number of a step as reports show it, counted from the initial values."""
    return f"step {recipe.done + step + 1}"


def is_key_bias(name: str) -> bool:
    """Whether a parameter is a key's bias, which softmax ignores: it shifts all scores of a query."""
    return name.endswith("attention.key.bias")


def differences(comparison: Comparison) -> Iterator[Difference]:
    """Yields the largest difference of each kind, in the order of Bounds."""
    for kind in asdict(comparison.bounds):
        if kind in comparison.largest:
            yield comparison.largest[kind]


def difference_lines(found: Sequence[Difference]) -> Iterator[str]:
    """Yields a heading and a line for every difference, as all reports of replays show them."""
    width = max([8, *(len(each.kind) for each in found)]) + 1
    yield f"  {'kind':<{width}}{'difference':>12}{'bound':>9}  where it is largest"
    for each in found:
        mark = "" if each.passed else "  <-- above its bound"
        place = each.where if each.value else "-"
        yield f"  {each.kind:<{width}}{each.value:>12.2e}{each.bound:>9.0e}  {place}{mark}"


def _note_largest(
    found: Comparison, kind: str, difference: np.ndarray, scale: float, place: tuple[str, str, Gathered]
) -> None:
    when, name, whole = place
    size = np.abs(difference)
    index = np.unravel_index(int(np.where(np.isnan(size), np.inf, size).argmax()), size.shape)
    element = ", ".join(map(str, index))
    where = f"{when}, {name}[{element}], rank {whole.owner[index]}"
    found.note(kind, _ratio(size[index], scale), where)


def _cut(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Removes the rows that pad the vocabulary."""
    return values[: len(expected)]


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))


def _relative(value: np.ndarray, expected: np.ndarray) -> float:
    """Relative difference of two scalars; 0 if neither is finite."""
    a, b = float(value), float(expected)
    if not (np.isfinite(a) or np.isfinite(b)):
        return 0.0
    return _ratio(abs(a - b), abs(b))


def _ratio(size: float, scale: float) -> float:
    """size / scale; inf if a tensor moves that must not move at all."""
    if size == 0.0:
        return 0.0
    return float(size / scale) if scale > 0.0 else np.inf
