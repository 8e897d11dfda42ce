"""What each rank sees of its machine; works where MindSpore and CANN do not."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from glob import glob
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

from pangu_alpha.cluster.tables.build import read_hccn_conf
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.files.writing import durable_file, write_all

_DISTRIBUTION = "pangu-alpha-mindspore"
_PACKAGES = ("mindspore", "mindformers", "numpy")
_BYTES = 64 << 20  # of the file by which the storage's speed is measured
_VERSION_FILES = {  # where Ascend's installers leave what they installed
    "driver": ("/usr/local/Ascend/driver/version.info",),
    "CANN": ("$ASCEND_TOOLKIT_HOME/version.cfg", "$ASCEND_HOME_PATH/version.cfg",
             "/usr/local/Ascend/ascend-toolkit/latest/version.cfg"),
}  # fmt: skip


def measure(place: Place) -> dict[str, Any]:
    """Returns versions, devices, limits, clock and storage of this rank's machine."""
    return {
        "host": socket.gethostname(),
        "boot": _text(Path("/proc/sys/kernel/random/boot_id")).strip(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "packages": dict(_packages()),
        "ascend": {name: _first(files) for name, files in _VERSION_FILES.items()},
        "devices": sorted(int(path.removeprefix("/dev/davinci")) for path in glob("/dev/davinci[0-9]*")),
        "npu_smi": _output("npu-smi", "info"),
        "device_addresses": _device_addresses(place),
        "rank_table": place.setup.rank_table,
        "place": _own_device(place) if place.setup.device == "Ascend" else None,
        "limits": _limits(),
        "memory": psutil.virtual_memory().total / _ranks_here(place),
        "storage": _storage(place) if _first_here(place) else None,
    }


def _packages() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each package's version, what this project requires of it, and whether that is met."""
    required = {
        each.name: each for each in map(Requirement, requires(_DISTRIBUTION) or ()) if not each.marker
    }
    for name in _PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = ""
        rule = required[name].specifier
        yield name, {"version": found, "required": str(rule), "met": bool(found) and found in rule}


def _own_device(place: Place) -> dict[str, int]:
    node = place.setup.node_of(place.rank)
    return {"device": place.setup.devices[node][place.setup.nodes[node].index(place.rank)]}


def _ranks_here(place: Place) -> int:
    return len(place.setup.nodes[place.setup.node_of(place.rank)])


def _first_here(place: Place) -> bool:
    """Whether this is the first rank of its machine, which measures for all of them what they share."""
    return place.rank == min(place.setup.nodes[place.setup.node_of(place.rank)])


def _limits() -> dict[str, float]:
    """The soft limits of this process; -1 for none."""
    names = {"open files": "NOFILE", "processes": "NPROC", "address space": "AS", "locked memory": "MEMLOCK"}
    return {name: resource.getrlimit(getattr(resource, f"RLIMIT_{key}"))[0] for name, key in names.items()}


def _device_addresses(place: Place) -> dict[str, str]:
    """Network addresses of the devices of this machine by number, as text, from hccn_tool or hccn.conf."""
    found: dict[str, str] = {}
    for device in place.setup.devices[place.setup.node_of(place.rank)]:
        if address := re.search(r"ipaddr:\s*(\S+)", _output("hccn_tool", "-i", str(device), "-ip", "-g")):
            found[str(device)] = address[1]
    if not found:
        with suppress(OSError, ValueError):
            found = {str(device): each for device, each in read_hccn_conf("/etc/hccn.conf").items()}
    return found


def _storage(place: Place) -> dict[str, Any]:
    """What the shared folder does: its clock against ours, its speed, renames and locks. Units: s, bytes."""
    path = place.folder / f"storage_{place.rank}"
    try:
        began = time.time()
        seconds = _write(path)
        offset = path.stat().st_mtime - began - seconds
        renamed = path.with_suffix(".renamed")
        path.rename(renamed)
        return {
            "fault": "",
            "bytes_per_second": _BYTES / seconds,
            "clock_offset": offset,
            "rename": renamed.stat().st_size == _BYTES and not path.exists(),
            "lock": _locks(renamed),
            "free": _free(place.folder),
        }
    except OSError as error:
        return {"fault": f"{error.strerror}: {place.folder}"}
    finally:
        for each in (path, path.with_suffix(".renamed")):
            each.unlink(missing_ok=True)


def _write(path: Path) -> float:
    """Writes and flushes a file of _BYTES; returns seconds."""
    block, began = os.urandom(1 << 20), time.perf_counter()
    with durable_file(path) as descriptor:
        for _ in range(_BYTES >> 20):
            write_all(descriptor, block)
    return time.perf_counter() - began


def _locks(path: Path) -> bool:
    """Whether a second lock on a file is refused while the first one is held."""
    with path.open("rb") as one, path.open("rb") as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _first(files: tuple[str, ...]) -> str:
    """The first line with a version of the first file that is there."""
    for name in files:
        text = _text(Path(os.path.expandvars(name)))
        if found := re.search(r"(?i)version\w*\s*[=:]\s*\[?([^\]\n]+)", text):
            return found[1].strip()
    return ""


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text("utf-8", "replace")
    return ""


def _output(*command: str) -> str:
    """What a tool prints; "" if it is not there or fails."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=30)
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
    return ""
