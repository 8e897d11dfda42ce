"""Whether dropout drops the right share, independently, and the same elements on every device."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pangu_alpha.cluster_check.check import Evidence, Finding, Record


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the findings about masks; shares and correlations are judged in their standard deviations."""
    found, plain = evidence.one("device"), evidence.one("plain")
    yield from _masks(evidence, found, "")
    different = [name for name, digest in plain["digests"].items() if found["digests"].get(name) != digest]
    text = f"{len(different)} differ, the first: {different[0]}" if different else "equal"
    yield Finding(
        "masks, against those of the plain operators on CPU", text, "equal, bit for bit", not different
    )
    yield from _streams(evidence)


def _streams(evidence: Evidence) -> Iterator[Finding]:
    """Yields the findings about run.attention_dropout=device: every rank draws masks of its own."""
    ranks = evidence.records["stream"]
    yield from _masks(evidence, ranks[0], "device's own stream: ")
    holders: dict[str, list[str]] = {}
    for rank, record in enumerate(ranks):
        for name, digest in record["digests"].items():
            holders.setdefault(digest, []).append(f"rank {rank}, {name}")
    alike = [places for places in holders.values() if len(places) > 1]
    text = f"{alike[0][0]} and {alike[0][1]} are equal" if alike else f"{len(holders)} different masks"
    rule = "no two alike, of cells, calls and ranks"
    yield Finding("device's own stream: masks of all ranks", text, rule, bool(holders) and not alike)


def _masks(evidence: Evidence, found: Record, whose: str) -> Iterator[Finding]:
    """Yields the findings about one rank's masks: share, factor, and how masks go together."""
    rate = found["rate"]
    deviations = {
        name: abs(share - rate) / math.sqrt(rate * (1.0 - rate) / found["elements"][name])
        for name, share in found["zeros"].items()
    }
    name = max(deviations, key=lambda name: deviations[name])
    what = f"{whose}share of zeros that is farthest from {rate:g} ({name}: {found['zeros'][name]:.4f})"
    yield evidence.at_most(f"{what}, in standard deviations", deviations[name], "deviations")
    factors = sorted({each for values in found["factors"].values() for each in values})
    right = bool(factors) and all(abs(each * (1.0 - rate) - 1.0) < 2e-3 for each in factors)
    yield Finding(
        f"{whose}factors of what stays", str(factors)[1:-1] or "none", f"1 / (1 - {rate:g}) alone", right
    )
    pairs = {
        pair: abs(value) * math.sqrt(found["elements"][pair.partition(" / ")[0]])
        for pair, value in found["correlations"].items()
    }
    pair = max(pairs, key=lambda pair: pairs[pair])
    what = f"{whose}largest correlation of two masks ({pair}: {found['correlations'][pair]:.4f})"
    yield evidence.at_most(f"{what}, in standard deviations", pairs[pair], "deviations")
