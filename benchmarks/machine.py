"""This machine and the best that it does: float32 matrix products and reads of memory.

    python benchmarks/machine.py [--threads N]

prints the processor and its limits. The other benchmarks take the same measurements between the rounds of
their programs (`Limits`), so that both saw the same machine. Each library is a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from programs import Program, Round, serve

# Of the flags in /proc/cpuinfo, those that decide how fast a product or a narrow type is; the last three are
# those of Arm.
INSTRUCTIONS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8",
    "asimd", "sve", "bf16",
)  # fmt: skip
LARGE = ((2048, 2048, 2048), (2048, 1024, 4096), (4096, 4096, 1024))  # rows, inner dimension, columns
REPEATS = 2  # of each product and read in a round; the best counts
STREAMS, AHEAD, PINNED = (1, 4, 8), (0, 16), (0, 1)  # ways to read, see read_speed.cpp
ALIGNMENT = 64 * 16  # bytes: a cache line of each of the most streams
COLUMNS = 1024  # of the matrix-vector product that reads memory
PRODUCTS, READS = "products", "reads"


def describe(cpuinfo: str, threads: int) -> dict[str, Any]:
    """Name, cores used and instruction sets of a processor.

    Args:
        cpuinfo: Text of /proc/cpuinfo, or "".
        threads: That the benchmark uses.
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:  # some hypervisors hide the model's name
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "processor": re.sub(r"\s+", " ", name),
        "cores": threads,
        "instructions": [each for each in INSTRUCTIONS if each in flags],
    }


def this_machine(threads: int) -> dict[str, Any]:
    """Describes the machine, prints a line about it, and returns fields of the JSON line."""
    path = Path("/proc/cpuinfo")
    found = describe(path.read_text("utf-8") if path.exists() else "", threads)
    sets = ", ".join(found["instructions"]) or "none of those looked for"
    print(f"{found['processor']}, {threads} cores used; instruction sets: {sets}", flush=True)
    return found


def usable_cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


class Limits:
    """Workers that measure the machine's best, asked between the rounds of what is compared with it.

    Args:
        kind: PRODUCTS or READS.
        threads: Of each worker.
        work: Shapes of more products to try beside LARGE, or the bytes of one read.
    """

    def __init__(self, kind: str, threads: int, work: Sequence[Sequence[int]] | int) -> None:
        self.kind = kind
        self.programs = []
        for name in WORKERS[kind]:
            try:
                self.programs.append(Program(__file__, name, threads, kind, json.dumps(work)))
            except RuntimeError as error:  # a library that is not installed, no compiler
                print(f"limit of {kind}: {error}", flush=True)

    def round(self) -> None:
        """Every worker measures once."""
        for program in self.programs:
            program.round()

    def close(self) -> None:
        """Ends the workers."""
        for program in self.programs:
            program.close()

    @property
    def by_worker(self) -> dict[str, tuple[float, str]]:
        """Of each worker, the most per second that it reached (FLOP or bytes) and by what."""
        return {program.name: best(program.rounds) for program in self.programs}

    def rates(self) -> list[float]:
        """The best of all workers in each measurement, FLOP/s or bytes/s."""
        return [best(rounds)[0] for rounds in zip(*(each.rounds for each in self.programs), strict=True)]

    def report(self) -> None:
        """Prints the best of each worker."""
        unit = "GFLOP/s" if self.kind == PRODUCTS else "GB/s"
        found = self.by_worker
        words = [f"{name} {value / 1e9:.1f} ({way})" for name, (value, way) in found.items()]
        rates = ", ".join(f"{rate / 1e9:.0f}" for rate in self.rates())
        print(f"best {self.kind}, {unit}: {', '.join(words)}; in the order of time: {rates}", flush=True)


def best(rounds: Sequence[Mapping[str, float]]) -> tuple[float, str]:
    """The largest figure of some rounds, and its name."""
    return max((value, name) for each in rounds for name, value in each.items() if name != "others")


def fastest(work: Callable[[], Any]) -> float:
    """Least seconds of some repeats."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def operands(shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Random x [rows, inner] and w [columns, inner] of a product x w^T."""
    random = np.random.default_rng(0)
    rows, inner, columns = shape
    return random.random((rows, inner), np.float32), random.random((columns, inner), np.float32)


def product_round(
    shapes: Sequence[Sequence[int]], make: Callable[[np.ndarray, np.ndarray], dict[str, Callable[[], Any]]]
) -> Round:
    """A round of products of one library, FLOP/s each.

    Args:
        shapes: Rows, inner dimension and columns of each.
        make: Takes x and w, and returns ways to compute x w^T by name.
    """
    works = {
        f"{'x'.join(map(str, shape))}{way}": (2 * rows_inner_columns(shape), work)
        for shape in shapes
        for way, work in make(*operands(shape)).items()
    }
    return lambda: {name: flops / fastest(work) for name, (flops, work) in works.items()}


def rows_inner_columns(shape: Sequence[int]) -> int:
    """Multiplications of a product."""
    rows, inner, columns = shape
    return rows * inner * columns


def mindspore_products(x: np.ndarray, w: np.ndarray) -> dict[str, Callable[[], Any]]:
    """MindSpore's MatMul in graph mode, with w as it lies and transposed beforehand."""
    import mindspore as ms
    from mindspore import nn, ops

    class Product(nn.Cell):
        def __init__(self, transposed: bool) -> None:
            super().__init__()
            self.product = ops.MatMul(transpose_b=transposed)

        def construct(self, x, w):
            return self.product(x, w)

    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    a, b, c = ms.Tensor(x), ms.Tensor(w), ms.Tensor(np.ascontiguousarray(w.T))
    transposed, plain = Product(True), Product(False)
    return {"": lambda: transposed(a, b).asnumpy(), " plain": lambda: plain(a, c).asnumpy()}


def torch_products(x: np.ndarray, w: np.ndarray) -> dict[str, Callable[[], Any]]:
    """torch's product, with w as it lies and transposed beforehand."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    a, b = torch.from_numpy(x), torch.from_numpy(w)
    c = b.t().contiguous()
    return {"": lambda: torch.nn.functional.linear(a, b), " plain": lambda: torch.mm(a, c)}


def numpy_products(x: np.ndarray, w: np.ndarray) -> dict[str, Callable[[], Any]]:
    """numpy's product, which comes from OpenBLAS."""
    return {"": lambda: x @ w.T}


def vector_round(size: int, make: Callable[[np.ndarray, np.ndarray], dict[str, Callable[[], Any]]]) -> Round:
    """A round of reading by products of one row, bytes/s each.

    Args:
        size: Bytes of the matrix.
        make: See `product_round`.
    """
    works = make(*operands((1, COLUMNS, size // (4 * COLUMNS))))
    return lambda: {f"matrix-vector{way}": size / fastest(work) for way, work in works.items()}


def compile_reader(folder: str) -> Callable[..., float]:
    """Compiles read_speed.cpp for this processor and returns its function.

    Raises:
        RuntimeError: There is no compiler.
    """
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("neither g++ nor clang++ is installed, so memory is read by other means only")
    source, library = Path(__file__).with_name("read_speed.cpp"), Path(folder) / "read_speed.so"
    flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).read_seconds
    function.restype = ctypes.c_double
    function.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_size_t,
        ctypes.c_int,
    ]
    return function


class Reader:
    """Memory that threads read by several streams each.

    Args:
        size: Bytes, rounded down so that all streams of all threads are equally long.

    Raises:
        RuntimeError: There is no compiler.
    """

    WAYS = tuple(itertools.product(STREAMS, AHEAD, PINNED))

    def __init__(self, size: int) -> None:
        self._threads = int(os.environ["OMP_NUM_THREADS"])
        self.size = size - size % (ALIGNMENT * self._threads)
        self._array = np.random.default_rng(0).random(self.size // 4 + 16, np.float32)
        with tempfile.TemporaryDirectory() as folder:
            self._read = compile_reader(folder)

    def seconds(self, way: tuple[int, int, int]) -> float:
        """Of one read of everything, by streams, lines ahead and whether threads are pinned."""
        place = -self._array.ctypes.data % 64 + self._array.ctypes.data
        return self._read(place, self.size, self._threads, *way)


def stream_round(size: int) -> Round:
    """A round of reading by several streams a thread, bytes/s of each way."""
    reader = Reader(size)

    def run() -> dict[str, float]:
        found = {}
        for way in Reader.WAYS:
            streams, ahead, pinned = way
            name = f"{streams} streams{', prefetch' * bool(ahead)}{', pinned' * pinned}"
            found[name] = reader.size / min(reader.seconds(way) for _ in range(REPEATS))
        return found

    return run


def sum_round(size: int) -> Round:
    """A round of reading by numpy's sums, one part a thread, bytes/s: what needs no compiler."""
    from concurrent.futures import ThreadPoolExecutor

    threads = int(os.environ["OMP_NUM_THREADS"])
    parts = np.array_split(np.random.default_rng(0).random(size // 4, np.float32), threads)
    pool = ThreadPoolExecutor(threads)
    return lambda: {"sums": size / fastest(lambda: list(pool.map(np.sum, parts)))}


LIBRARIES = {"mindspore": mindspore_products, "torch": torch_products, "numpy": numpy_products}
WORKERS: dict[str, dict[str, Callable[[Any], Round]]] = {
    PRODUCTS: {
        name: lambda shapes, make=make: product_round([*LARGE, *shapes], make)
        for name, make in LIBRARIES.items()
    },
    READS: {
        **{name: lambda size, make=make: vector_round(size, make) for name, make in LIBRARIES.items()},
        "streams": stream_round,
        "sums": sum_round,
    },
}


def main() -> None:
    """Prints the limits of this machine."""
    if sys.argv[1:2] == ["--worker"]:
        _, _, name, kind, work = sys.argv
        return serve(WORKERS[kind][name], json.loads(work))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=1000, help="of one read; more than the caches hold")
    options = parser.parse_args()
    figures: dict[str, Any] = {"metric": "machine", **this_machine(options.threads)}
    for kind, work in ((PRODUCTS, ()), (READS, options.megabytes * 10**6)):
        limits = Limits(kind, options.threads, work)
        for _ in range(options.rounds):
            limits.round()
        limits.close()
        limits.report()
        figures[kind] = {name: round(value / 1e9, 1) for name, (value, _) in limits.by_worker.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
