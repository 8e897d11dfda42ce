"""Where a run stands in its sources: how many samples each has given, whatever its weights have been.

While the mixture stays the same, everything is a closed form of the sample's number. A changed mixture starts
at the sample where it changed, and each source continues after the samples it had given. A source is
identified by its records, so it keeps its place when it is renamed, and when it leaves and comes back. Knows
no files and no MindSpore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pangu_alpha.config.data import SourceConfig
from pangu_alpha.config.schema import ConfigError, build, to_mapping, validate
from pangu_alpha.data.order import Mixture

# Repeating data up to about four times is nearly as good as new data; more repetition quickly loses value
# (Muennighoff et al., "Scaling Data-Constrained Language Models", 2023).
_EPOCHS_WORTH = 4.0


@dataclass(frozen=True)
class SourcePlace:
    """One source, and how far it had been read when the mixture last changed.

    Args:
        name: Its name in the config and in reports.
        weight: Share of the samples relative to the other sources; None if it has left the mixture.
        windows: Number of its windows; 0 if an older checkpoint does not record it.
        records: Digest of its records; None if an older checkpoint does not record it.
        order: Name that seeds its order, which is the first name it had.
        draws: Number of samples it had given.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    name: str
    weight: float | None
    windows: int
    records: str | None
    order: str
    draws: int = 0

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("windows", "draws"):
            if getattr(self, name) < 0:
                yield f"{name}: {getattr(self, name)} must not be negative"

    @classmethod
    def new(cls, name: str, weight: float, windows: int, records: str | None) -> SourcePlace:
        """A source of which nothing has been read."""
        return cls(name, weight, windows, records, order=name)


@dataclass(frozen=True)
class Position:
    """How many samples every source had given when the mixture last changed, from which the rest follows.

    Args:
        since: Sample at which the mixture last changed; 0 if it never did.
        sources: First the sources in the mixture, in the config's order, then those that have left it.

    Raises:
        ConfigError: The numbers do not add up, or no source is in the mixture.
    """

    since: int
    sources: tuple[SourcePlace, ...]

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not 0 <= self.since < 2**63:
            yield f"since: {self.since} must lie in [0, 2^63)"
        if not isinstance(self.sources, tuple):
            return
        if (draws := sum(source.draws for source in self.sources)) != self.since:
            yield f"since: {self.since}, but the sources gave {draws} samples"
        names = [source.name for source in self.sources if source.weight is not None]
        if len({*names}) < len(names):
            yield "sources: two in the mixture have one name"
        weights = [source.weight for source in self.sources]
        if not weights or weights[0] is None or sorted(weights, key=lambda weight: weight is None) != weights:
            yield "sources: those in the mixture must stand first, and there must be one"

    @cached_property
    def present(self) -> tuple[SourcePlace, ...]:
        """The sources that are in the mixture, in its order."""
        return tuple(source for source in self.sources if source.weight is not None)

    @cached_property
    def mixture(self) -> Mixture:
        """The mixture that assigns the samples from `since` on."""
        return _mixture(self.sources)

    @property
    def fingerprint(self) -> int:
        """An int64 that is equal on two ranks only if they read the same data."""
        digest = hashlib.sha256(json.dumps(to_mapping(self)).encode()).digest()
        return int.from_bytes(digest[:8], "little", signed=True)

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the source and the draw of the given samples.

        Args:
            samples: int64 array of numbers from `since` on.

        Returns:
            Two int64 arrays of the same shape: the source's index in `present`, and how many samples that
            source gave before.
        """
        sources, draws = self.mixture(np.asarray(samples, np.int64) - self.since)
        return sources, draws + np.array([source.draws for source in self.present])[sources]

    def at(self, samples: int) -> tuple[SourcePlace, ...]:
        """The sources, with the samples they have given when `samples` (at least `since`) have been read."""
        counts = self.mixture.counts(samples - self.since).tolist()
        counts += [0] * (len(self.sources) - len(counts))
        return tuple(
            replace(source, draws=source.draws + count)
            for source, count in zip(self.sources, counts, strict=True)
        )

    def change(self, samples: int, sources: Sequence[SourcePlace]) -> Position:
        """Returns the position of a run that continues with the given sources.

        Args:
            samples: Sample at which it continues.
            sources: Its mixture, each source as made by `SourcePlace.new`.
        """
        places = _matches(self.sources, sources)
        same = places == [*range(len(self.present))]
        same = same and _mixture(sources).slots == self.mixture.slots
        known = self.sources if same else self.at(samples)
        found = tuple(
            new if place is None else replace(new, order=known[place].order, draws=known[place].draws)
            for new, place in zip(sources, places, strict=True)
        )
        left = (replace(s, weight=None) for place, s in enumerate(known) if place not in places)
        return Position(self.since if same else samples, (*found, *left))


def _mixture(sources: Iterable[SourcePlace]) -> Mixture:
    """The mixture of the sources that have a weight, that is, that have not left."""
    return Mixture({source.name: source.weight for source in sources if source.weight is not None})


def _matches(before: Sequence[SourcePlace], now: Sequence[SourcePlace]) -> list[int | None]:
    """For each source now, the index of the same source before: the one with its records.

    If several have the same records, the one that also has its name is taken.
    """
    places: list[int | None] = [None] * len(now)
    for renamed in (False, True):
        for index, new in enumerate(now):
            if places[index] is None:
                free = (place for place in range(len(before)) if place not in places)
                places[index] = next((p for p in free if _is_same(before[p], new, renamed)), None)
    return places


def _is_same(old: SourcePlace, new: SourcePlace, renamed: bool) -> bool:
    if old.name == new.name:
        return old.records in (new.records, None)
    return renamed and old.records == new.records and new.records is not None


def kept_position(config: Mapping[str, Any], state: Mapping[str, Any], samples: int) -> Position | None:
    """Returns the position that a checkpoint stores.

    Args:
        config: The checkpoint's configuration; older checkpoints record only there how they mixed from sample
            0.
        state: The checkpoint's training state.
        samples: Number of samples that had been read.

    Returns:
        None if the checkpoint does not record its sources, as one of another program.

    Raises:
        ConfigError: The position has another form, or does not add up.
    """
    if "mixture" in state:
        position = build(Position, state["mixture"], "state.mixture")
        if position.since > samples:
            raise ConfigError([f"state.mixture.since: {position.since} is beyond the place {samples}"])
        return position
    data = config.get("data")
    train = data.get("train") if isinstance(data, Mapping) else None
    if not isinstance(train, Mapping) or not train:
        return None
    records = state.get("records")
    digests = records if isinstance(records, Mapping) else {}
    sources = []
    for name, values in train.items():
        source = build(SourceConfig, values, f"config.data.train.{name}")
        sources.append(SourcePlace.new(name, source.weight, 0, digests.get(name)))
    return Position(0, tuple(sources))


def changes(before: Position, after: Position) -> Iterator[str]:
    """Yields a sentence for each source that a changed mixture affects."""
    places = _matches(before.sources, after.present)
    names = {source.name for source in before.sources}
    for source, place in zip(after.present, places, strict=True):
        key = f"data.train.{source.name}"
        if place is None and source.name in names:
            yield (
                f"{key}: its records are others than before, so it is read from their first window on; to "
                "add text without reading the old one again, give the new text as a source of its own"
            )
        elif place is None:
            yield f"{key}: a new source"
        elif (old := before.sources[place]).weight is None:
            yield f"{key}: is back in the mixture and goes on where it was"
        elif old.name != source.name:
            yield f"{key}: has the records of {old.name}, so it goes on in its place and order"
    here = {source.name for source in after.present}
    for place, source in enumerate(before.present):
        if place not in places and source.name not in here:
            yield f"data.train.{source.name}: left the mixture; if it comes back, it goes on where it was"


def plan_table(position: Position, samples: int, amount: int, now: int = 0, unit: str = "tokens") -> str:
    """Returns a table of what a run reads from each source, as plain text for the log before the first step.

    Args:
        samples: Number of samples of the whole run: steps * global batch.
        amount: How much one sample trains on; for a window, its S tokens.
        now: Number of samples read so far.
        unit: Unit of `amount`, for the heading.

    Returns:
        Share, tokens and epochs, one line per source, and a warning for every source read more than 4 times.
        For a run that continues, a last column gives the epochs read so far.
    """
    now = max(now, position.since)
    samples = max(samples, now)
    shares = [*position.mixture.shares.values()]
    width = max(len(name) for name in (*(source.name for source in position.sources), "source", "total"))
    head = f"{'source':<{width}}  {'share':>7}  {'windows':>11}  {f'{unit} to read':>15}  {'epochs':>8}"
    lines, warnings = [head + (f"  {'so far':>8}" if now else "")], []
    for place, (end, so_far) in enumerate(zip(position.at(samples), position.at(now), strict=True)):
        share = f"{shares[place]:.2%}" if place < len(shares) else "left"
        read, windows = f"{end.draws * amount:,}", f"{end.windows:,}" if end.windows else "-"
        line = f"{end.name:<{width}}  {share:>7}  {windows:>11}  {read:>15}  {_epochs(end):>8}"
        lines.append(line + (f"  {_epochs(so_far):>8}" if now else ""))
        if end.weight is not None and end.draws > _EPOCHS_WORTH * end.windows:
            warnings.append(
                f"warning: {end.name!r} is read {end.draws / end.windows:.1f} times; beyond "
                f"{_EPOCHS_WORTH:.0f} repeats teach little: give it a smaller weight, add text, or train for "
                "fewer steps"
            )
    total = sum(source.windows for source in position.present)
    lines.append(f"{'total':<{width}}  {'':>7}  {total:>11,}  {samples * amount:>15,}")
    return "\n".join([*lines, *warnings])


def _epochs(source: SourcePlace) -> str:
    return f"{source.draws / source.windows:.2f}" if source.windows else "-"
