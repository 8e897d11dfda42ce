"""Makes MindSpore's compiler for Ascend load on machines without CANN, where no compiled graph can run.

Knows the files of the installed wheel and the process's environment; does not import MindSpore. A real CANN
is always preferred to stubs. An ordinary run must never have the folder of stubs on its search path: see
plain_environment.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

SEEN = ("2.9.0",)  # versions of MindSpore whose libraries need no more than these stubs, as far as we tested

# Libraries below the wheel's mindspore/lib/plugin that a compilation for Ascend at simulation level 0 loads.
_LOADED = (
    "libmindspore_ascend.so.2",
    "libmindspore_ops_ascend.so",
    "ascend/libmindspore_ascend_res_manager.so",
    "ascend/libd_collective.so",
    "ascend/libhccl_plugin.so",
    "ascend/ms_kernels_symmetric_memory/**/*.so",
)
_ACL = "libascendcl.so"
_MARK = "pangu_alpha_stubs"
_NAMES, COUNTS = "functions.txt", "pangu_alpha_stub_calls"
_RECIPE = 2  # raise this number whenever the way in which stubs are built changes
_SIMULATION = ("MS_SIMULATION_LEVEL", "RANK_ID", "RANK_SIZE")
# With these variables of msrun or of a rank table, MindSpore would join a real cluster instead.
_CLUSTER = ("RANK_TABLE_FILE", "MS_ROLE", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_WORKER_NUM", "MS_NODE_ID")


def ensure_libraries(cache: Path | None = None) -> Path:
    """Returns the folder with CANN's libraries for a dry run: the real one, or one of stubs.

    Stubs are built if they do not exist yet. Every function that MindSpore needs from CANN and does not bring
    itself becomes a stub that returns 0. This is enough for MindSpore 2.9.0: ge::StatusFactory::Instance(),
    which must return an object (a std::map of the old C++ ABI that static initialisers fill), is needed only
    by the wheel's libraries of custom operators (custom_ascendc_910b), and those are loaded to run, not to
    compile.

    Args:
        cache: Folder where stubs are kept, by MindSpore's version and files; default ~/.cache/pangu_alpha.

    Outputs:
        The folder for LD_LIBRARY_PATH. Several processes may build it at once.

    Raises:
        ValueError: If stubs cannot be built here: not Linux on x86-64, no gcc, no MindSpore, or a version of
            MindSpore that was not tested.
    """
    if found := installed_cann():
        return found
    plugin = _check_host()
    libraries = _loaded_libraries(plugin)
    root = Path(cache) if cache else Path.home() / ".cache" / "pangu_alpha"
    # MindSpore 2.9.0 accepts a libascendcl.so as CANN's only if its path contains "cann".
    target = root / "cann_stubs" / f"mindspore-{metadata.version('mindspore')}-{_digest(libraries)}"
    if not (target / "lib64" / _MARK).exists():
        _build(target, plugin.parent, libraries)
    return target / "lib64"


def installed_cann(environment: Mapping[str, str] | None = None) -> Path | None:
    """Finds the libraries of a real CANN by LD_LIBRARY_PATH, ASCEND_HOME_PATH or ASCEND_TOOLKIT_HOME.

    Returns:
        The libraries' folder; None if there is no real CANN.
    """
    environment = os.environ if environment is None else environment
    folders = [Path(part) for part in _search_path(environment)]
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        if environment.get(name):
            folders.append(Path(environment[name]) / "lib64")
    return next((path for path in folders if (path / _ACL).exists() and not (path / _MARK).exists()), None)


def dry_run_environment(rank: int, world: int, cache: Path | None = None) -> dict[str, str]:
    """The environment of a child process that compiles as one rank of many, and runs nothing.

    Args:
        rank: The rank to compile as.
        cache: See ensure_libraries.

    Outputs:
        This process's environment with the libraries, MS_SIMULATION_LEVEL=0, RANK_ID and RANK_SIZE; and,
            where they are not set, GLOG_v=4 (critical errors only) and OMP_NUM_THREADS=1.

    Raises:
        ValueError: If rank is not below world, or ensure_libraries raises it.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank}: must be from 0 to {world - 1}, one of {world} ranks")
    environment = plain_environment()
    for name in _CLUSTER:
        environment.pop(name, None)
    folders = [str(ensure_libraries(cache))]
    folders += [part for part in _search_path(environment) if part not in folders]
    environment.setdefault("GLOG_v", "4")
    environment.setdefault("OMP_NUM_THREADS", "1")
    numbers = {"MS_SIMULATION_LEVEL": "0", "RANK_ID": str(rank), "RANK_SIZE": str(world)}
    return environment | numbers | {"LD_LIBRARY_PATH": ":".join(folders)}


def plain_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment without stubs and simulation, for a run on CPU or on real devices.

    Args:
        environment: The environment to start from; default: this process's. A real CANN on LD_LIBRARY_PATH
            stays.
    """
    plain = dict(os.environ if environment is None else environment)
    for name in _SIMULATION:
        plain.pop(name, None)
    kept = [part for part in _search_path(plain) if not (Path(part) / _MARK).exists()]
    plain.pop("LD_LIBRARY_PATH", None)
    return plain | ({"LD_LIBRARY_PATH": ":".join(kept)} if kept else {})


def stubs_in_use() -> tuple[Path, list[str]] | None:
    """The library of stubs that this process may have loaded, and its functions; None if there is none."""
    found = next((Path(part) for part in _search_path(os.environ) if (Path(part) / _MARK).exists()), None)
    return None if found is None else (found / _ACL, (found / _NAMES).read_text("ascii").splitlines())


def _search_path(environment: Mapping[str, str]) -> list[str]:
    return [part for part in environment.get("LD_LIBRARY_PATH", "").split(":") if part]


def _check_host() -> Path:
    """Checks that stubs can be built here, and returns the wheel's folder of plugins."""
    remedy = "install CANN and set ASCEND_HOME_PATH, or make the dry run on another machine"
    host = f"{platform.system()} on {platform.machine()}"
    if host != "Linux on x86_64":
        raise ValueError(
            f"dry run: no CANN here, and stubs of it are for Linux on x86_64, not {host}; {remedy}"
        )
    if shutil.which("gcc") is None:
        raise ValueError(f"dry run: no CANN here, and no gcc to build stubs of it; install gcc, or {remedy}")
    spec = util.find_spec("mindspore")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("dry run: MindSpore is not installed; pip install mindspore==" + SEEN[-1])
    version = metadata.version("mindspore")
    if version not in SEEN:
        raise ValueError(
            f"dry run: stubs of CANN are known to do for MindSpore {', '.join(SEEN)}, not for {version}; "
            f"install that version, or {remedy}"
        )
    return Path(spec.submodule_search_locations[0]) / "lib" / "plugin"


def _loaded_libraries(plugin: Path) -> list[Path]:
    found = [path for pattern in _LOADED for path in sorted(plugin.glob(pattern))]
    if not found:
        raise ValueError(f"{plugin}: no libraries for Ascend; this build of MindSpore cannot compile for it")
    return found


def _digest(libraries: list[Path]) -> str:
    facts = [_RECIPE, *((path.name, path.stat().st_size) for path in libraries)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _build(target: Path, lib: Path, libraries: list[Path]) -> None:
    """Builds stubs in a temporary folder, then renames it unless another process was faster."""
    names, functions = _wanted(lib, libraries)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    try:
        folder = scratch / "lib64"
        folder.mkdir()
        source = folder / "stubs.S"
        source.write_text(_assembly(functions), encoding="ascii")
        (folder / _NAMES).write_text("".join(f"{name}\n" for name in sorted(functions)), encoding="ascii")
        _gcc("-shared", "-nostdlib", "-o", str(folder / _ACL), str(source))
        for name in names - {_ACL}:
            (folder / name).symlink_to(_ACL)  # one file serves as all libraries
        (folder / _MARK).write_text("Stubs of CANN that do nothing. For dry runs only.\n", encoding="ascii")
        scratch.chmod(0o755)
        scratch.rename(target)
    except OSError:  # renaming onto a folder that is not empty: another process was faster
        if not (target / "lib64" / _MARK).exists():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _assembly(functions: set[str]) -> str:
    """Assembly code of functions that count their calls and return 0; counters in order of names."""
    size = 4 * len(functions)
    counters = (
        f".bss\n.globl {COUNTS}\n.type {COUNTS},@object\n.size {COUNTS},{size}\n"
        f".balign 4\n{COUNTS}:\n.Lcalls:\n .zero {size}\n"
    )
    bodies = (
        f".globl {name}\n.type {name},@function\n{name}:\n"
        f" lock incl .Lcalls+{4 * place}(%rip)\n xor %eax,%eax\n ret\n"
        for place, name in enumerate(sorted(functions))
    )
    return counters + ".text\n" + "".join(bodies) + '.section .note.GNU-stack,"",@progbits\n'


def _wanted(lib: Path, libraries: list[Path]) -> tuple[set[str], set[str]]:
    """Names of the libraries and of the functions that neither the wheel nor the system has."""
    elves = [_read_elf(path) for path in libraries]
    brought = {path.name for path in lib.rglob("*.so*")}
    absent = set().union(*(elf.needed for elf in elves)) - brought
    system = {
        name: path for name in absent | {"libc.so.6", "libstdc++.so.6"} if (path := _system_library(name))
    }
    around = [_read_elf(path) for path in (*lib.glob("*.so*"), *system.values())]
    defined = set().union(*(elf.defined for elf in elves + around))
    wanted = set().union(*(elf.undefined for elf in elves)) - defined
    functions = {name for name in wanted if not name.startswith(("Py", "_Py"))}  # Python itself has these
    assert not any(name.startswith(("_ZTV", "_ZTI")) for name in functions), "data, not functions"
    return absent - set(system), functions


def _system_library(name: str) -> Path | None:
    """Path of a system library; None if gcc does not know it and just returns the name."""
    path = Path(_gcc(f"-print-file-name={name}").strip())
    return path.resolve() if path.is_absolute() else None


def _gcc(*arguments: str) -> str:
    done = subprocess.run(["gcc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"dry run: gcc {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


@dataclass(frozen=True)
class _Elf:
    """What the dynamic linker reads from a library (ELF-64, little-endian; man 5 elf).

    Args:
        needed: Libraries it is linked to.
        defined: Symbols it defines.
        undefined: Symbols it needs from any library; those with a version belong to system libraries and are
            left out.
    """

    needed: set[str]
    defined: set[str]
    undefined: set[str]


_DYNAMIC, _DYNSYM, _VERSYM = 6, 11, 0x6FFFFFFF  # section types
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size
_OPTIONAL = ("__gmon_start__", "_ITM_", "_ZTH", "__cxa_")  # weak symbols that may stay undefined


def _read_elf(path: Path) -> _Elf:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path}: not a 64-bit little-endian ELF library")
        start = struct.unpack_from("<Q", data, 40)[0]
        size, count = struct.unpack_from("<HH", data, 58)
        sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
        by_type = {section[1]: section for section in sections}
        symbols = by_type[_DYNSYM]
        names = sections[symbols[6]][4]

        def content(section: tuple[int, ...]) -> bytes:
            return data[section[4] : section[4] + section[5]]

        def text(offset: int) -> str:
            return data[names + offset : data.find(b"\0", names + offset)].decode()

        needed = {
            text(value) for tag, value in struct.iter_unpack("<qQ", content(by_type[_DYNAMIC])) if tag == 1
        }
        table = list(_SYMBOL.iter_unpack(content(symbols)))
        versions = [1] * len(table)
        if _VERSYM in by_type:
            versions = [v & 0x7FFF for (v,) in struct.iter_unpack("<H", content(by_type[_VERSYM]))]
        defined = {text(row[0]) for row in table if row[3]}
        rows = zip(table, versions, strict=True)
        undefined = {text(row[0]) for row, version in rows if _is_wanted(row, version)}
    return _Elf(needed, defined, {name for name in undefined if not name.startswith(_OPTIONAL)})


def _is_wanted(row: tuple[int, ...], version: int) -> bool:
    """Whether a symbol has a name, no section (so it is undefined) and no version."""
    return bool(row[0]) and row[3] == 0 and version <= 1
