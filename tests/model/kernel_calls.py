"""Calls every kernel of a library on arrays that are just as large as needed; prints a digest of each call.

It is run in processes of its own, with other numbers of threads or with a checker of memory, and needs no
MindSpore: `kernel_calls.py LIBRARY THREADS`.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys

import numpy as np

OFFSETS = (0, 1)  # elements by which arrays are shifted from the place that an allocator aligns
AFFINE = [
    (1, 1, 1),
    (1, 37, 100),
    (9, 100, 37),
    (65, 64, 129),
    (257, 96, 513),
    (150, 1536, 200),
    (320, 700, 1),
    (66, 2000, 130),
    (200, 300, 2),
    (258, 1024, 1024),
]
ATTENTION = [(1, 1, 1, 1, 4), (2, 3, 16, 16, 8), (1, 2, 150, 150, 12), (2, 1, 9, 70, 1), (1, 2, 129, 129, 64)]
COLUMNS = [(1, 1), (1, 3), (9, 3), (37, 100), (33, 1), (150, 1024)]
LOSS = [(1, 5, 3), (32, 24, 50), (65, 40, 600), (9, 768, 1300)]
ELEMENTS = [1, 3, 37, 16385, 200001]


class Caller:
    """Calls kernels as MindSpore does.

    Args:
        offset: Elements between an allocation and the array in it.
    """

    def __init__(self, library: str, offset: int = 0) -> None:
        self.library, self.offset = ctypes.CDLL(library), offset
        self.random = np.random.default_rng(7)

    def array(self, values) -> np.ndarray:
        """A copy that ends where its allocation ends."""
        values = np.asarray(values)
        whole = np.empty(values.size + self.offset, values.dtype)
        whole[self.offset :] = values.ravel()
        return whole[self.offset :].reshape(values.shape)

    def normal(self, *shape) -> np.ndarray:
        return self.array(self.random.standard_normal(shape).astype(np.float32))

    def words(self, *shape) -> np.ndarray:
        """Odd int32 numbers."""
        return self.array(self.random.integers(-(2**31), 2**31 - 1, shape).astype(np.int32) | np.int32(1))

    def scalar(self, value, kind=np.float32) -> np.ndarray:
        return self.array(np.array([value], kind))

    def __call__(self, name: str, inputs, shapes) -> list[np.ndarray]:
        """Outputs of a kernel; they are NaN before it writes them."""
        outputs = [self.array(np.full(shape, np.nan, np.float32)) for shape in shapes]
        arrays = [*inputs, *outputs]
        data = (ctypes.c_void_p * len(arrays))(*(each.ctypes.data for each in arrays))
        ranks = (ctypes.c_int * len(arrays))(*(each.ndim for each in arrays))
        sizes = [(ctypes.c_int64 * max(each.ndim, 1))(*each.shape) for each in arrays]
        pointers = (ctypes.c_void_p * len(arrays))(*(ctypes.addressof(each) for each in sizes))
        code = getattr(self.library, name)(len(arrays), data, ranks, pointers, None, None, None)
        assert code == 0, (name, code)
        return outputs


def may_attend(batch: int, queries: int, keys: int) -> np.ndarray:
    """Packed documents; in the second row of the batch a query may attend to nothing."""
    document = np.arange(keys) // 50
    mask = np.tril(np.ones((queries, keys))) * (document[np.arange(queries) % keys, None] == document)
    mask = np.repeat(mask[None], batch, 0)
    mask[1:, queries // 2] = 0
    return mask.astype(np.float32)


def affine(call: Caller):
    for rows, inputs, outputs in AFFINE:
        x, weight, bias, dy = (
            call.normal(rows, inputs),
            call.normal(outputs, inputs),
            call.normal(outputs),
            call.normal(rows, outputs),
        )
        name = f"{rows} x {inputs} x {outputs}"
        yield f"Linear {name}", call("Linear", [x, weight], [dy.shape])
        yield f"Affine {name}", call("Affine", [x, weight, bias], [dy.shape])
        yield (
            f"AffineGradient {name}",
            call("AffineGradient", [x, weight, dy], [x.shape, weight.shape, bias.shape]),
        )


def layer_norm(call: Caller):
    for rows, columns in COLUMNS:
        x, gamma, beta, dy = (
            call.normal(rows, columns),
            call.normal(columns),
            call.normal(columns),
            call.normal(rows, columns),
        )
        out = call("LayerNorm", [x, gamma, beta, call.scalar(1e-5)], [x.shape, (rows,), (rows,)])
        yield f"LayerNorm {rows} x {columns}", out
        gradients = call(
            "LayerNormGradient", [x, gamma, out[1], out[2], dy], [x.shape, gamma.shape, gamma.shape]
        )
        yield f"LayerNormGradient {rows} x {columns}", gradients


def pointwise(call: Caller):
    for count in ELEMENTS:
        x = call.normal(count)
        yield f"Gelu {count}", call("Gelu", [x], [x.shape])
        yield f"GeluGradient {count}", call("GeluGradient", [x, call.normal(count)], [x.shape])
    for rows, columns in COLUMNS:
        x, threshold = call.normal(rows, columns), call.scalar(-(2**30), np.int32)
        given = [x, call.words(1, rows), call.words(columns), threshold, call.scalar(4 / 3)]
        yield f"Dropout {rows} x {columns}", call("Dropout", given, [x.shape])


def attention(call: Caller):
    for batch, heads, queries, keys, size in ATTENTION:
        shapes = [(batch * queries, heads * size), (batch * keys, heads * size), (batch * keys, heads * size)]
        given = [*(call.normal(*shape) for shape in shapes), call.array(may_attend(batch, queries, keys))]
        given.append(call.words(heads))
        dout = call.normal(*shapes[0])
        threshold, factor = call.scalar(-(2**30), np.int32), call.scalar(4 / 3)
        drop = [call.words(batch, queries), call.words(keys), threshold, factor]
        for more in ([], drop):
            name = f"{batch} x {heads} x {queries} x {keys} x {size}{' with dropout' if more else ''}"
            yield f"Attention {name}", call("Attention", [*given, *more], shapes[:1])
            yield f"AttentionGradient {name}", call("AttentionGradient", [*given, dout, *more], shapes)


def store(call: Caller):
    """New entries of some rows of a cache, in any order of the rows, and a copy of the first slots of one."""
    for rows, named, heads, length, slots, hidden in [(1, [0], 1, 1, 1, 3), (4, [3, 0, 2], 2, 4, 9, 24)]:
        cache, new = call.normal(rows, slots, hidden), call.normal(len(named) * length, hidden)
        before = cache.copy()
        places = np.zeros((len(named), heads, length, 3), np.int32)
        places[..., 0] = np.reshape(named, (-1, 1, 1))
        places[..., 2] = np.arange(slots - length, slots)
        done = call("StoreInCache", [cache, new, call.array(places)], [(1,)])
        before[named, slots - length :] = new.reshape(-1, length, hidden)
        assert (cache == before).all()
        yield f"StoreInCache {slots} x {hidden}", [cache, *done]
    for rows, slots, hidden, numbers in [
        (2, 1, 3, (0, 1, 1)),
        (3, 150, 5, (2, 0, 130)),
        (3, 9, 5, (1, 1, 4)),
    ]:
        cache = call.normal(rows, slots, hidden)
        before, (source, target, length) = cache.copy(), numbers
        done = call("CopyInCache", [cache, call.array(np.array(numbers, np.int32))], [(1,)])
        before[target, :length] = before[source, :length]
        assert (cache == before).all()
        yield f"CopyInCache {slots} x {hidden}", [cache, *done]


def cross_entropy(call: Caller):
    for rows, hidden, words in LOSS:
        x, table = call.normal(rows, hidden), call.normal(words, hidden)
        labels = call.array(call.random.integers(0, words, rows).astype(np.int32))
        labels[0], labels[-1] = words - 1, 0
        out = call("CrossEntropy", [x, table, labels], [(rows,), (rows, words)])
        name = f"{rows} x {hidden} x {words}"
        yield f"CrossEntropy {name}", out
        given = [x, table, labels, out[1], call.normal(rows)]
        yield (
            f"CrossEntropyGradient {rows} x {hidden} x {words}",
            call("CrossEntropyGradient", given, [x.shape, table.shape]),
        )


def update(call: Caller):
    for count in ELEMENTS:
        yield f"SquareSum {count}", call("SquareSum", [call.normal(count)], [(1,)])
        state = [call.normal(count), call.normal(count), call.array(np.abs(call.normal(count)))]
        scalars = [call.scalar(each) for each in (0.7, 1, 1e-3, 0.9, 0.95, 1e-8, 0.1)]
        done = call("AdamW", [*state, call.normal(count), *scalars], [(1,)])
        yield f"AdamW {count}", [*state, *done]


KERNELS = (affine, layer_norm, pointwise, attention, store, cross_entropy, update)


def main(library: str, threads: str) -> None:
    ctypes.CDLL(library).pangu_use_threads(int(threads))
    for offset in OFFSETS:
        call = Caller(library, offset)
        for kernel in KERNELS:
            for name, outputs in kernel(call):
                assert all(np.isfinite(each).all() for each in outputs), name
                digest = hashlib.sha256(b"".join(each.tobytes() for each in outputs)).hexdigest()
                print(f"{name}, offset {offset}: {digest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
