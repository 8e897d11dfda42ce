"""Whether all machines are alike, have what this project needs, and share their storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.cluster.tables.problem import ranges
from pangu_alpha.cluster.tables.rank_table import read
from pangu_alpha.cluster_check.check import Evidence, Finding, Record
from pangu_alpha.cluster_check.judge.npu_smi import devices_of, version_of

# MindSpore 2.9.0 takes these without a warning (mindspore/run_check/_check_version.py).
CANN = ("8.2", "8.3", "8.5", "9.0")


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
    yield _same("processor", [each["processor"] for each in records])
    if evidence.device == "Ascend":
        yield from _installed(records)
        yield from _npus(evidence, records)
    yield from _addresses(records)


def _installed(records: Sequence[Record]) -> Iterator[Finding]:
    for name in ("driver", "CANN"):
        missing = [rank for rank, each in enumerate(records) if not each["ascend"][name]]
        text = f"not found on ranks {ranges(missing)}" if missing else "found"
        yield Finding(f"{name} installation", text, "found on all ranks", not missing)
    versions = {each["ascend"]["CANN"] for each in records}
    known = all(any(_begins(part, one) for one in CANN for part in text.split(":")) for text in versions)
    rule = f"one that MindSpore 2.9 knows: {', '.join(CANN)}"
    yield Finding("CANN's version", ", ".join(sorted(versions)) or "none", rule, known)


def _begins(version: str, start: str) -> bool:
    return version == start or version.startswith((f"{start}.", f"{start}-"))


def _npus(evidence: Evidence, records: Sequence[Record]) -> Iterator[Finding]:
    """The devices of the ranks, in /dev and as npu-smi shows them."""
    missing, seen = [], {}
    for rank, each in enumerate(records):
        number = each["place"]["device"]
        if number not in each["devices"]:
            shown = f"/dev has {ranges(each['devices']) or 'none'}"
            missing.append(f"device {number} of rank {rank}: {shown}")
        elif (npu := devices_of(each["npu_smi"]).get(number)) is not None:
            seen[rank] = npu
    text = "; ".join(missing[:4]) or "all there"
    yield Finding("devices of the ranks", text, "in /dev", not missing)
    unseen = sorted(set(range(len(records))) - set(seen))
    text = f"not those of ranks {ranges(unseen)}" if unseen else "all"
    yield Finding("devices that npu-smi shows", text, "those of all ranks", not unseen)
    yield _same("npu-smi", [version_of(each["npu_smi"]) for each in records])
    if not seen:
        return
    yield _same("device", [npu.name for npu in seen.values()])
    ill = {rank: npu.health for rank, npu in seen.items() if npu.health != "OK"}
    text = ", ".join(f"rank {rank}: {health}" for rank, health in ill.items()) or "OK"
    yield Finding("health of the devices", text, "OK", not ill)
    least = min(npu.memory for npu in seen.values()) * 2**20 / 1e9
    yield evidence.at_least("memory of a device, GB", round(least, 2), "device_gigabytes")
    yield _same("memory of a device, MiB", [npu.memory for npu in seen.values()])
    shares = {rank: npu.used / max(npu.memory, 1) for rank, npu in seen.items()}
    fullest = max(shares, key=lambda rank: shares[rank])
    what = f"share of a device's memory in use before the check (rank {fullest})"
    yield evidence.at_most(what, round(shares[fullest], 3), "used_share")


def _addresses(records: Sequence[Record]) -> Iterator[Finding]:
    """Compares the rank table with the addresses that the devices themselves have."""
    tables = sorted({each["rank_table"] for each in records} - {""})
    if not tables:
        return
    table, wrong, silent = read(Path(tables[0])), [], []
    for rank, each in enumerate(records):
        server, device = table.find(rank)
        real = each["device_addresses"].get(str(device.device_id))
        if real is None:
            silent.append(rank)
        elif real != device.device_ip:
            wrong.append(f"rank {rank}: {server.server_id} device {device.device_id} has {real}, the table "
                         f"says {device.device_ip}")  # fmt: skip
    text = (
        "; ".join(wrong[:4]) or f"{len(records) - len(silent)} of {len(records)} devices told their address"
    )
    if silent and not wrong:
        text += "; the others have neither hccn_tool nor /etc/hccn.conf"
    # Within one server the addresses are not used.
    passed = not wrong and (not silent or len(table.servers) == 1)
    yield Finding("rank table", text, "has the addresses that the devices have", passed)


def _limits(evidence: Evidence, records: Sequence[Record]) -> Iterator[Finding]:
    files = [each["limits"]["open files"] for each in records]
    least = min(float("inf") if each < 0 else each for each in files)
    yield evidence.at_least("open files that a process may have", least, "open_files")
    for name, bound in (("processes", "processes"), ("address space", "address_space")):
        limits = [each["limits"][name] for each in records]
        least = min(float("inf") if each < 0 else each for each in limits)
        yield evidence.at_least(f"limit of a process: {name}", least, bound)
    memory = min(each["memory"] for each in records) / 1e9
    yield evidence.at_least("memory of the host for each rank, GB", round(memory, 2), "host_gigabytes")


def _storage(evidence: Evidence, records: Sequence[Record]) -> Iterator[Finding]:
    """The shared folder as the first rank of each machine sees it; they all write at the same time."""
    found = {rank: each["storage"] for rank, each in enumerate(records) if each["storage"] is not None}
    faults = {rank: each["fault"] for rank, each in found.items() if each["fault"]}
    if faults:
        rank, fault = next(iter(faults.items()))
        text = f"rank{'s' * (len(faults) > 1)} {ranges(faults)} cannot write: {fault} (rank {rank})"
        yield Finding("shared folder", text, "can be written by all ranks", False)
        return
    for name, rule in {"rename": "replaces at once", "lock": "keeps a second process out"}.items():
        wrong = [rank for rank, each in found.items() if not each[name]]
        text = f"not on ranks {ranges(wrong)}" if wrong else "on all machines"
        yield Finding(f"shared folder: {name}", text, rule, not wrong)
    offsets = [each["clock_offset"] for each in found.values()]
    spread = max(offsets) - min(offsets)
    yield evidence.at_most("difference between the hosts' clocks, s", round(spread, 3), "clock_seconds")
    slowest = min(each["bytes_per_second"] for each in found.values()) / 1e6
    yield Finding("writing with fsync, MB/s, slowest machine", round(slowest, 1))
    what = "writing with fsync, MB/s, all machines together at the slowest one's rate"
    yield evidence.at_least(what, round(slowest * len(found), 1), "write_megabytes")
    free = min(each["free"] for each in found.values()) / 1e9
    yield evidence.at_least("free space of the shared folder, GB", round(free, 2), "free_gigabytes")
