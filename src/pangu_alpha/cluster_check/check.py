"""What a check is, what it is judged by, and what comes of it. Starts nothing and measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Ranks = Literal["one", "each", "all"]
Verdict = Literal["passed", "failed", "died", "late", "skipped"]
Record = Mapping[str, Any]  # what one rank has measured: JSON


@dataclass(frozen=True)
class Measurement:
    """Processes that are started together and measure one thing; each writes a record.

    Args:
        name: Name among those of its check, which a folder can have.
        ranks: "one" starts the first rank; "each" starts all ranks, which do not communicate; "all" starts
            all ranks and joins them.
        device: Device to use instead of the one that is checked. "" uses none, so that it works where
            MindSpore does not.
        environment: Variables of its processes, beside those of all.
        multiple: The number of ranks must be a multiple of this.
        kinds: Kinds of devices on which it runs.
        title: Name in words, where `name` is not enough.
        independent: Whether no other measurement needs it: if it ends with an error, that is a finding, and
            the next one runs.
    """

    name: str
    ranks: Ranks = "one"
    device: Literal["checked", "CPU", ""] = "checked"
    environment: Mapping[str, str] = field(default_factory=dict)
    multiple: int = 1
    kinds: tuple[str, ...] = ("CPU", "Ascend")
    title: str = ""
    independent: bool = False

    def skipped(self, ranks: int, device: str) -> str | None:
        """Says why it does not run on so many ranks of a kind of device, or None."""
        if device not in self.kinds:
            return f"on {' and '.join(self.kinds)} alone"
        if ranks % self.multiple:
            return f"a multiple of {self.multiple} ranks is needed, {ranks} here"
        return None


@dataclass(frozen=True)
class Finding:
    """One comparison with its outcome.

    Args:
        what: What was compared, in words.
        value: What was found.
        rule: What it had to be, in words; "" for a figure that is reported but has no bound.
        passed: Whether the rule holds.
    """

    what: str
    value: float | str
    rule: str = ""
    passed: bool = True


@dataclass(frozen=True)
class Evidence:
    """What a check is judged by.

    Args:
        device: Kind of device that is checked, "CPU" or "Ascend".
        bounds: The check's bounds for this kind of device.
        records: By measurement, the record of each rank.
    """

    device: str
    bounds: Mapping[str, float]
    records: Mapping[str, Sequence[Record]]

    def one(self, measurement: str) -> Record:
        """The first rank's record of a measurement."""
        return self.records[measurement][0]

    def at_most(self, what: str, value: float, bound: str) -> Finding:
        """A finding that passes if a value does not exceed a bound; NaN does not pass."""
        limit = self.bounds[bound]
        return Finding(what, value, f"at most {limit:g}", value <= limit)

    def at_least(self, what: str, value: float, bound: str) -> Finding:
        """A finding that passes if a value reaches a bound; NaN does not pass."""
        limit = self.bounds[bound]
        return Finding(what, value, f"at least {limit:g}", value >= limit)


_NEEDED = {
    "oracle": "the arrays of the official code, which lie in tests/fixtures of a source checkout",
    "released": "a released network, such as the 2.6B: name its folder with --released, a text with --text",
    "text": "a text that the released network predicts: name it with --text",
}


@dataclass(frozen=True)
class Check:
    """A check as data; cluster_check.table lists all.

    Args:
        name: Its name; see `module`.
        part: Heading in the report.
        shows: What is known once it has passed.
        measurements: What is measured, in this order.
        judge: Yields the findings of what was measured.
        bounds: By kind of device, bounds by name; the judge says what each is for.
        seconds: By kind of device, the time that each measurement usually takes. Unit: seconds.
        least: Smallest number of ranks with which there is anything to measure.
        needs: Fields of the set-up without which there is nothing to measure.
        folder: Folder in `measure` that its module lies in; "" for `measure` itself.
    """

    name: str
    part: str
    shows: str
    measurements: tuple[Measurement, ...]
    judge: Callable[[Evidence], Iterator[Finding]]
    bounds: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, int]
    least: int = 1
    needs: tuple[str, ...] = ()
    folder: str = ""

    @property
    def module(self) -> str:
        """Name of the module that has its function measure(place)."""
        return ".".join(filter(None, ("pangu_alpha.cluster_check.measure", self.folder, self.name)))

    def skipped(self, ranks: int, facts: Mapping[str, Any]) -> str | None:
        """Says why there is nothing to measure, or None.

        Args:
            facts: Fields of the set-up by name.
        """
        if ranks < self.least:
            return f"needs at least {self.least} ranks, {ranks} here"
        lacking = [name for name in self.needs if not facts[name]]
        return f"needs {_NEEDED[lacking[0]]}" if lacking else None

    def measured(self, ranks: int, device: str) -> tuple[Measurement, ...]:
        """The measurements that run on so many ranks of a kind of device."""
        return tuple(each for each in self.measurements if each.skipped(ranks, device) is None)

    def left_out(self, ranks: int, device: str) -> Iterator[Finding]:
        """Yields which measurements do not run, by the reason why they do not."""
        reasons: dict[str, list[str]] = {}
        for each in self.measurements:
            if (why := each.skipped(ranks, device)) is not None:
                reasons.setdefault(why, []).append(each.title or each.name)
        for why, names in reasons.items():
            yield Finding(f"not measured, {why}", "; ".join(names))

    def limit(self, device: str) -> float:
        """Seconds after which a measurement is ended: many times what it usually takes."""
        return 60.0 + 10.0 * self.seconds[device]


@dataclass(frozen=True)
class Result:
    """What came of a check.

    Args:
        verdict: "died" if a process ended with an error, "late" if one was ended after the time limit.
        why: One sentence for every verdict but "passed".
        seconds: Time that it took.
        log: Log of the process that failed, relative to the folder of the results.
        tail: The last lines of that log.
        records: By measurement, the folder of its records, relative to the folder of the results.
        parts: By measurement, the time that it took, starting its processes included. Unit: seconds.
    """

    check: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    why: str = ""
    seconds: float = 0.0
    log: str = ""
    tail: tuple[str, ...] = ()
    records: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)


# What judges and pictures raise if records do not hold what it expects, as those of a broken device may.
UNUSABLE = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)


def judged(check: Check, evidence: Evidence) -> tuple[Finding, ...]:
    """The findings of a check; records that cannot be judged are a finding that does not pass."""
    try:
        found = tuple(check.judge(evidence))
    except UNUSABLE as error:
        return (Finding("records", f"{type(error).__name__}: {error}", "can be judged", False),)
    return found or (Finding("records", "none", "hold what is judged", False),)
