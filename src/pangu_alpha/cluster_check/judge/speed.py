"""What a device's products and memory give, and whether that is far below what such devices give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pangu_alpha.cluster_check.check import Evidence, Finding, Record


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the rates by size; the best of each kind has a bound."""
    record = evidence.one("device")
    for size, rate in product_rates(record).items():
        yield Finding(f"product of {size} rows and columns, {record['dtype']}, GFLOP/s", round(rate / 1e9, 1))
    best = max(product_rates(record).values()) / 1e9
    yield evidence.at_least("best product, GFLOP/s", round(best, 1), "gigaflops")
    for size, rate in memory_rates(record).items():
        yield Finding(f"sum of tensors of {size / 2**20:g} MiB, GB/s", round(rate / 1e9, 1))
    # The largest tensors, because smaller ones may stay in a cache.
    largest = memory_rates(record)[max(memory_rates(record))] / 1e9
    yield evidence.at_least("memory with the largest tensors, GB/s", round(largest, 1), "gigabytes")
    yield Finding("first call of an operator, s", round(record["first_call"], 3))
    yield evidence.at_most("a call that has almost nothing to do, s", record["nothing"], "call_seconds")


def product_rates(record: Record) -> Mapping[int, float]:
    """By number of rows and columns, operations per second of a matrix product."""
    return {int(size): 2.0 * int(size) ** 3 / seconds for size, seconds in record["products"].items()}


def memory_rates(record: Record) -> Mapping[int, float]:
    """By bytes of a tensor, bytes per second of a sum of two, which reads two and writes one."""
    return {int(size): 3.0 * int(size) / seconds for size, seconds in record["copies"].items()}
