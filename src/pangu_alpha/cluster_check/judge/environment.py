"""Whether all machines are alike, have what this project needs, and share their storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.cluster.tables.problem import ranges
from pangu_alpha.cluster.tables.rank_table import read
from pangu_alpha.cluster_check.check import Evidence, Finding, Record


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the findings about machines, software and storage."""
    records = evidence.records["machine"]
    yield from _software(records)
    yield from _devices(evidence, records)
    yield from _limits(evidence, records)
    yield from _storage(evidence, records)


def _same(what: str, values: Sequence[Any]) -> Finding:
    """Passes if all ranks have the same value; otherwise names the ranks that differ from most."""
    usual = Counter(map(str, values)).most_common(1)[0][0]
    others = [rank for rank, value in enumerate(values) if str(value) != usual]
    if not others:
        return Finding(what, usual or "none found", "the same on all ranks")
    text = f"{usual or 'none'}; on ranks {ranges(others)}: {values[others[0]] or 'none'}"
    return Finding(what, text, "the same on all ranks", False)


def _software(records: Sequence[Record]) -> Iterator[Finding]:
    yield _same("Python", [each["python"] for each in records])
    for name in records[0]["packages"]:
        found = [each["packages"][name] for each in records]
        yield _same(name, [each["version"] for each in found])
        wrong = [each for each in found if not each["met"]]
        shown = (wrong or found)[0]
        rule = f"within {shown['required']}, as setup.py says"
        yield Finding(f"{name}'s version", shown["version"] or "not installed", rule, not wrong)
    for name in records[0]["ascend"]:
        yield _same(name, [each["ascend"][name] for each in records])


def _devices(evidence: Evidence, records: Sequence[Record]) -> Iterator[Finding]:
    hosts = sorted({each["host"] for each in records})
    yield Finding("hosts", ", ".join(hosts))
    if evidence.device == "Ascend":
        for name in ("driver", "CANN"):
            missing = [rank for rank, each in enumerate(records) if not each["ascend"][name]]
            text = f"not found on ranks {ranges(missing)}" if missing else "found"
            yield Finding(f"{name} installation", text, "found on all ranks", not missing)
    for rank, each in enumerate(records):
        if (place := each.get("place")) is not None and place["device"] not in each["devices"]:
            text = f"/dev has {ranges(each['devices']) or 'none'}"
            yield Finding(f"device {place['device']} of rank {rank}", text, "in /dev", False)
    yield from _addresses(records)


def _addresses(records: Sequence[Record]) -> Iterator[Finding]:
    """Compares the rank table with the addresses that the devices themselves have."""
    tables = sorted({each["rank_table"] for each in records} - {""})
    if not tables:
        return
    table, wrong, known = read(Path(tables[0])), [], 0
    for rank, each in enumerate(records):
        server, device = table.find(rank)
        real = each["device_addresses"].get(str(device.device_id))
        known += real is not None
        if real is not None and real != device.device_ip:
            wrong.append(f"rank {rank}: {server.server_id} device {device.device_id} has {real}, the table "
                         f"says {device.device_ip}")  # fmt: skip
    text = "; ".join(wrong[:4]) or f"{known} of {len(records)} devices told their address"
    yield Finding("rank table", text, "has the addresses that the devices have", not wrong)


def _limits(evidence: Evidence, records: Sequence[Record]) -> Iterator[Finding]:
    files = [each["limits"]["open files"] for each in records]
    least = min(float("inf") if each < 0 else each for each in files)
    yield evidence.at_least("open files that a process may have", least, "open_files")
    memory = min(each["memory"] for each in records) / 1e9
    yield evidence.at_least("memory of the host for each rank, GB", round(memory, 2), "host_gigabytes")


def _storage(evidence: Evidence, records: Sequence[Record]) -> Iterator[Finding]:
    faults = {rank: each["storage"]["fault"] for rank, each in enumerate(records) if each["storage"]["fault"]}
    if faults:
        rank, fault = next(iter(faults.items()))
        text = f"rank{'s' * (len(faults) > 1)} {ranges(faults)} cannot write: {fault} (rank {rank})"
        yield Finding("shared folder", text, "can be written by all ranks", False)
        return
    found = [each["storage"] for each in records]
    for name, rule in {"rename": "replaces at once", "lock": "keeps a second process out"}.items():
        wrong = [rank for rank, each in enumerate(found) if not each[name]]
        text = f"not on ranks {ranges(wrong)}" if wrong else "on all ranks"
        yield Finding(f"shared folder: {name}", text, rule, not wrong)
    offsets = [each["clock_offset"] for each in found]
    spread = max(offsets) - min(offsets)
    yield evidence.at_most("difference between the hosts' clocks, s", round(spread, 3), "clock_seconds")
    slowest = min(each["bytes_per_second"] for each in found) / 1e6
    yield evidence.at_least("writing with fsync, MB/s, slowest rank", round(slowest, 1), "write_megabytes")
    free = min(each["free"] for each in found) / 1e9
    yield evidence.at_least("free space of the shared folder, GB", round(free, 2), "free_gigabytes")
