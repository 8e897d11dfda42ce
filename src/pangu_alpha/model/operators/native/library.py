"""Compiles the kernels in `source` once for this machine, and keeps the library for later processes.

The library has each loop for several kinds of x86-64 processors and chooses when it is loaded. Where there is
no compiler there are no kernels, and MindSpore's operators do the work.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

from mindspore._c_expression import RuntimeConf
from mindspore.device_context.cpu import op_tuning

from pangu_alpha.processes.cores import usable_cores

SOURCES = Path(__file__).parent / "source"
FLAGS = (
    "-O3",
    "-std=c++20",
    "-fPIC",
    "-shared",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
)
_X86 = ("-mprefer-vector-width=512",)
_SWITCH = "PANGU_KERNELS"
_REMEDY = "name a folder that can be written in the environment variable XDG_CACHE_HOME"


class NoKernelsError(Exception):
    """This machine has no kernels; the message says why."""


@functools.cache
def library() -> Path | None:
    """Returns the compiled library; None, with a warning that says why, where kernels cannot be used.

    The environment variable PANGU_KERNELS=off also gives None, without a warning.

    Raises:
        ValueError: PANGU_KERNELS is neither "on" nor "off".
    """
    wish = os.environ.get(_SWITCH, "on")
    if wish not in ("on", "off"):
        raise ValueError(f"{_SWITCH}={wish}: say on or off")
    if wish == "off":
        return None
    try:
        return _load()
    except NoKernelsError as error:
        warnings.warn(f"no kernels of our own, so MindSpore's operators compute: {error}", stacklevel=3)
        return None


def missing_bfloat16() -> str | None:
    """Says why no kernel multiplies matrices in bfloat16 here, and what to do; None if they can."""
    if (found := library()) is not None:
        if ctypes.CDLL(str(found)).pangu_has_bfloat16():
            return None
        return (
            "this processor has no AVX512-BF16 (AMD has it from Zen 4 on, Intel's Xeon from Sapphire Rapids "
            "on); leave the key out, or train on a processor that has it"
        )
    if os.environ.get(_SWITCH) == "off":
        return f"its kernels are turned off by {_SWITCH}=off; leave one of the two out"
    try:
        _load()
    except NoKernelsError as error:
        return f"its kernels are missing: {error}; mend that, or leave the key out"
    return None


def _load() -> Path:
    found = build(cache_folder())
    start(found)
    return found


def cache_folder() -> Path:
    """The folder for libraries, by the XDG Base Directory Specification, which ignores a relative path.

    Raises:
        NoKernelsError: There is no home folder, and the environment names no other one.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not folder.is_absolute():
        try:
            folder = Path.home() / ".cache"
        except RuntimeError:  # a user without an entry in the system's list, as in some containers
            raise NoKernelsError(f"this user has no home folder; {_REMEDY}") from None
    return folder / "pangu_alpha" / "kernels"


def build(cache: Path, flags: tuple[str, ...] = ()) -> Path:
    """Returns the library in the cache, after compiling it if it is not there.

    Args:
        cache: Folder for libraries, one for each combination of sources, compiler and flags.
        flags: Further flags of the compiler.

    Raises:
        NoKernelsError: There is no compiler, it fails, or the folder cannot be written.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(compiler[0]) is None:
        raise NoKernelsError(f"the compiler {compiler[0]} is not installed (another one can be named in CXX)")
    sources = sorted(SOURCES.glob("*.cc"))
    words = [*FLAGS, *(_X86 if platform.machine() == "x86_64" else ()), *flags]
    target = cache / _digest(compiler, words) / "libpangu_kernels.so"
    try:
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            built = Path(folder) / target.name
            _compile([*compiler, *words, *map(str, sources), "-o", str(built), "-ldl", "-lpthread"])
            built.replace(target)  # at once, so that another process never sees half a library
    except OSError as error:
        raise NoKernelsError(f"cannot write {target.parent}: {error.strerror}; {_REMEDY}") from error
    return target


def start(path: Path) -> None:
    """Loads a library, and gives it as many threads as OMP_NUM_THREADS says, else by the cores (cores.py).

    The kernels have threads of their own. Those of MindSpore would wait for work on the same cores,
    so there is only one of them from here on, unless somebody has chosen their number.

    Raises:
        NoKernelsError: It does not load, or is not a library of kernels.
    """
    # MindSpore sets OMP_NUM_THREADS for the C functions of the process; os.environ has what the user said.
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # one number for each level of nested loops
    threads = int(wish) if wish.isdecimal() else usable_cores()
    try:
        ctypes.CDLL(str(path)).pangu_use_threads(threads)
    except (OSError, AttributeError) as error:
        raise NoKernelsError(f"{error}") from error
    if not RuntimeConf.get_instance().is_op_threads_num_configured():
        op_tuning.threads_num(1)


def _compile(command: list[str]) -> None:
    done = _run(command)
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line]
            or done.stderr.splitlines()
            or ["?"]
        )
        raise NoKernelsError(f"{command[0]} failed: {lines[0]}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # In English: _compile looks for the word "error", and one compiler has one digest.
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})


def _digest(compiler: list[str], words: list[str]) -> str:
    version = _run([*compiler, "-v"]).stderr
    digest = hashlib.sha256("\0".join([platform.machine(), version, *compiler, *words]).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
