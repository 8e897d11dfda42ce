"""Calls every kernel of a library on arrays that are just as large as needed; prints a digest of each call.

It is run in processes of its own, with other numbers of threads or with a checker of memory, and needs no
MindSpore: `kernel_calls.py LIBRARY THREADS [PRECISION]`. With the precision "medium" it calls the kernels
that have products of bfloat16, otherwise all others.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from functools import partial

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
PROJECTIONS = [(1, 3, (5, 2)), (9, 40, (33, 33, 7)), (66, 600, (130, 1, 100)), (129, 70, (1030, 48))]
FEED_FORWARD = [(1, 3, 5, 2), (9, 24, 96, 24), (65, 40, 700, 33), (130, 100, 64, 500)]
ATTENTION = [(1, 1, 1, 1, 4), (2, 3, 16, 16, 8), (1, 2, 150, 150, 12), (2, 1, 9, 70, 1), (1, 2, 129, 129, 64)]
NETWORKS = [  # tokens, rows of the cache, slots, heads, head size, columns between the products, layers
    (1, 1, 1, 1, 4, 5, 1),
    (1, 2, 70, 2, 64, 512, 2),
    (3, 4, 9, 3, 5, 60, 3),
    (5, 5, 40, 1, 128, 200, 2),
    (8, 9, 33, 3, 80, 96, 2),
    (9, 9, 12, 2, 7, 3, 1),
    (16, 18, 20, 2, 16, 130, 2),
]
VOCABULARY = 51
FIRST = 9  # input of the first layer
TENSORS = 18  # of a layer
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

    def __call__(self, name: str, inputs, shapes, *more) -> list[np.ndarray]:
        """Outputs of a kernel; they are NaN before it writes them, or what `more` is."""
        outputs = [*(self.array(np.full(shape, np.nan, np.float32)) for shape in shapes), *more]
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


def affine(call: Caller, precision: str = ""):
    for rows, inputs, outputs in AFFINE:
        x, weight, bias, dy = (
            call.normal(rows, inputs),
            call.normal(outputs, inputs),
            call.normal(outputs),
            call.normal(rows, outputs),
        )
        name = f"{rows} x {inputs} x {outputs}"
        yield f"Linear {name}", call(f"Linear{precision}", [x, weight], [dy.shape])
        yield f"Affine {name}", call(f"Affine{precision}", [x, weight, bias], [dy.shape])
        yield (
            f"AffineGradient {name}",
            call(f"AffineGradient{precision}", [x, weight, dy], [x.shape, weight.shape, bias.shape]),
        )


def projections(call: Caller, precision: str = ""):
    for rows, inputs, outputs in PROJECTIONS:
        x, count = call.normal(rows, inputs), len(outputs)
        weights = [call.normal(each, inputs) for each in outputs]
        biases = [call.normal(each) for each in outputs]
        dys = [call.normal(rows, each) for each in outputs]
        shapes = [each.shape for each in dys]
        name = f"{rows} x {inputs} x {count}"
        yield f"Projections {name}", call(f"Projections{precision}", [x, *weights, *biases], shapes)
        shapes = [x.shape, *(each.shape for each in (*weights, *biases)), x.shape]
        yield (
            f"ProjectionsGradient {name}",
            call(f"ProjectionsGradient{precision}", [x, *weights, *dys], shapes)[:-1],
        )


def feed_forward(call: Caller, precision: str = ""):
    for rows, hidden, wide, outputs in FEED_FORWARD:
        x, dy = call.normal(rows, hidden), call.normal(rows, outputs)
        up, down = call.normal(wide, hidden), call.normal(outputs, wide)
        between = [(rows, wide)] * 2
        name = f"{rows} x {hidden} x {wide} x {outputs}"
        given = [x, up, call.normal(wide), down, call.normal(outputs)]
        out = call(f"FeedForward{precision}", given, [dy.shape, *between])
        yield f"FeedForward {name}", out
        shapes = [x.shape, up.shape, (wide,), down.shape, (outputs,), between[0]]
        yield (
            f"FeedForwardGradient {name}",
            call(f"FeedForwardGradient{precision}", [x, up, down, *out[1:], dy], shapes),
        )


def inputs(call: Caller):
    """Rows of a table by indices of which some occur often, some never, and some are none; and masks."""
    for number, rows, columns in [(1, 1, 1), (9, 3, 7), (150, 1000, 33), (300, 65, 130)]:
        ids = call.array(call.random.integers(0, rows, (1, number)).astype(np.int32))
        table, dy = call.normal(rows, columns), call.normal(number, columns)
        name = f"{number} of {rows} x {columns}"
        (found,) = call("LookUp", [table, ids], [dy.shape])
        assert (found == table[ids[0]]).all()
        yield f"LookUp {name}", [found]
        ids[0, -1] = rows
        yield f"LookUpGradient {name}", call("LookUpGradient", [dy, ids, table], [table.shape])
        yield f"ForkedLookUpGradient {name}", call("ForkedLookUpGradient", [dy, ids, table], [table.shape])
    for batch, length in [(1, 1), (2, 3), (3, 37), (2, 150)]:
        documents = call.array(np.cumsum(call.random.random((batch, length)) < 0.1, 1).astype(np.int32))
        (mask,) = call("DocumentMask", [documents], [(batch, length, length)])
        assert (mask == np.tril(documents[:, :, None] == documents[:, None])).all()
        yield f"DocumentMask {batch} x {length}", [mask, documents]


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
        given = [x, gamma, *out[1:], dy, call.normal(rows, columns)]
        gradients = call("LayerNormGradient", given, [x.shape, gamma.shape, gamma.shape])
        yield f"LayerNormGradient of a branch {rows} x {columns}", gradients


def pointwise(call: Caller):
    for count in ELEMENTS:
        x = call.normal(count)
        yield f"Gelu {count}", call("Gelu", [x], [x.shape])
        yield f"GeluGradient {count}", call("GeluGradient", [x, call.normal(count)], [x.shape])
    for rows, columns in COLUMNS:
        x, threshold = call.normal(rows, columns), call.scalar(-(2**30), np.int32)
        given = [x, call.words(1, rows), call.words(columns), threshold, call.scalar(4 / 3)]
        yield f"Dropout {rows} x {columns}", call("Dropout", given, [x.shape])
        for more in ([], given[1:]):
            name = f"Residual {rows} x {columns}{' with dropout' if more else ''}"
            yield name, call("Residual", [x, call.normal(rows, columns), *more], [x.shape])


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


def cached_attention(call: Caller):
    """Attention to the rows of a cache, whose heads lie apart, gives the bits of that to keys of [T, H]."""
    for batch, heads, queries, keys, size in ATTENTION:
        query, mask = call.normal(batch * queries, heads * size), may_attend(batch, queries, keys)
        apart = [call.normal(batch, heads, keys, size) for _ in range(2)]
        together = [call.array(each.transpose(0, 2, 1, 3).reshape(-1, heads * size)) for each in apart]
        more = [call.array(mask), call.words(heads)]
        found, expected = (
            call("Attention", [query, *each, *more], [query.shape]) for each in (apart, together)
        )
        assert (found[0] == expected[0]).all()
        yield f"Attention with a cache {batch} x {heads} x {queries} x {keys} x {size}", found


def store(call: Caller):
    """New entries of some rows of a cache, in any order of the rows, and a copy of the first slots of one."""
    for rows, named, heads, length, slots, size in [(1, [0], 1, 1, 1, 3), (4, [3, 0, 2], 2, 4, 9, 12)]:
        cache, new = call.normal(rows, heads, slots, size), call.normal(len(named) * length, heads * size)
        before = cache.copy()
        places = np.zeros((len(named), heads, length, 3), np.int32)
        places[..., 0] = np.reshape(named, (-1, 1, 1))
        places[..., 2] = np.arange(slots - length, slots)
        done = call("StoreInCache", [cache, new, call.array(places)], [(1,)])
        entries = new.reshape(-1, length, heads, size).transpose(0, 2, 1, 3)
        before[named, :, slots - length :] = entries
        assert (cache == before).all()
        yield f"StoreInCache {slots} x {heads} x {size}", [cache, *done]
    for rows, heads, slots, size, numbers in [
        (2, 1, 1, 3, (0, 1, 1)),
        (3, 2, 150, 5, (2, 0, 130)),
        (3, 4, 9, 5, (1, 1, 4)),
    ]:
        cache = call.normal(rows, heads, slots, size)
        before, (source, target, length) = cache.copy(), numbers
        done = call("CopyInCache", [cache, call.array(np.array(numbers, np.int32))], [(1,)])
        before[target, :, :length] = before[source, :, :length]
        assert (cache == before).all()
        yield f"CopyInCache {slots} x {heads} x {size}", [cache, *done]


def network_arguments(call: Caller, shape, norm_first: bool = False) -> list[np.ndarray]:
    """Inputs of CachedNetwork: places are some rows in disorder, with ranges of all lengths."""
    rows, cached, slots, heads, size, wide, layers = shape
    hidden = heads * size
    at = np.zeros((rows, 3), np.int32)
    at[:, 0] = call.random.permutation(cached)[:rows]
    at[:, 1] = slots - 1 - np.arange(rows) % slots
    at[:, 2] = at[:, 1] // (1 + np.arange(rows) % 3)
    ids = call.array(call.random.integers(0, VOCABULARY, rows).astype(np.int32))
    ids[0] = VOCABULARY - 1
    given = [ids, call.array(at), call.scalar(1e-5), call.scalar(norm_first, np.int32)]
    given += [call.normal(length, hidden) for length in (VOCABULARY, slots, slots)]
    given += [call.normal(hidden), call.normal(hidden)]
    for _ in range(layers):
        given += [call.normal(cached, heads, slots, size) for _ in range(2)]
        given += [call.normal(hidden) for _ in range(4)]
        for outputs, inputs in [(hidden, hidden)] * 4 + [(wide, hidden), (hidden, wide)]:
            given += [
                call.array(call.normal(outputs, inputs) / np.float32(inputs**0.5)),
                call.normal(outputs),
            ]
    return given


def caches_of(given) -> list[np.ndarray]:
    """Keys and values of each layer, of the inputs of CachedNetwork."""
    return [given[i + k] for i in range(FIRST, len(given), TENSORS) for k in range(2)]


def network(call: Caller):
    for shape in NETWORKS:
        for norm_first in (True, False):
            given = network_arguments(call, shape, norm_first)
            done = call("CachedNetwork", given, [(shape[0], VOCABULARY)])
            yield f"CachedNetwork {shape}{' norm first' * norm_first}", [*caches_of(given), *done]
    for rows in range(1, 9):
        x, weight, bias = call.normal(rows, 70), call.normal(37, 70), call.normal(37)
        yield f"Affine of {rows}", call("Affine", [x, weight, bias], [(rows, 37)])


def cross_entropy(call: Caller, precision: str = ""):
    for rows, hidden, words in LOSS:
        x, table = call.normal(rows, hidden), call.normal(words, hidden)
        labels = call.array(call.random.integers(0, words, rows).astype(np.int32))
        labels[0], labels[-1] = words - 1, 0
        out = call(f"CrossEntropy{precision}", [x, table, labels], [(rows,), (rows, words)])
        name = f"{rows} x {hidden} x {words}"
        yield f"CrossEntropy {name}", out
        given = [x, table, labels, out[1], call.normal(rows)]
        yield (
            f"CrossEntropyGradient {rows} x {hidden} x {words}",
            call(f"CrossEntropyGradient{precision}", given, [x.shape, table.shape]),
        )


def update(call: Caller):
    for count in ELEMENTS:
        yield f"SquareSum {count}", call("SquareSum", [call.normal(count)], [(1,)])
    for counts in [(1,), (3, 37), (65536, 1, 200001, 65537, 5)]:
        for largest in (1e30, 1e-30):
            given = update_arguments(call, counts, largest)
            norm, applied = call("ClippedAdamW", given, [(1,)], call.array(np.zeros(1, np.bool_)))
            assert applied[0] == (largest > 1)
            name = f"ClippedAdamW {counts} {'applied' if applied[0] else 'left out'}"
            yield name, [*given[: 3 * len(counts)], norm]


def update_arguments(call: Caller, counts, largest: float) -> list[np.ndarray]:
    """Inputs of ClippedAdamW for parameters of these sizes."""
    parameters, moments, gradients = ([call.normal(count) for count in counts] for _ in range(3))
    squares = [call.array(np.abs(call.normal(count))) for count in counts]
    decayed = call.array(np.arange(len(counts), dtype=np.float32) % 2)
    scalars = [call.scalar(each) for each in (37, 4, largest)]
    recipe, constants = (
        call.array(np.array(each, np.float32)) for each in ((1e-3, 1e-8, 0.1), (0.9, 0.95, 0.5))
    )
    return [*parameters, *moments, *squares, *gradients, decayed, *scalars, recipe, constants]


OF_EACH_PRECISION = (affine, projections, feed_forward, cross_entropy)
KERNELS = {
    "highest": [
        *OF_EACH_PRECISION,
        inputs,
        layer_norm,
        pointwise,
        attention,
        cached_attention,
        store,
        network,
        update,
    ],
    "medium": [partial(each, precision="Medium") for each in OF_EACH_PRECISION],
}


def main(library: str, threads: str, precision: str = "highest") -> None:
    ctypes.CDLL(library).pangu_use_threads(int(threads))
    for offset in OFFSETS:
        call = Caller(library, offset)
        for kernel in KERNELS[precision]:
            for name, outputs in kernel(call):
                assert all(np.isfinite(each).all() for each in outputs), name
                digest = hashlib.sha256(b"".join(each.tobytes() for each in outputs)).hexdigest()
                print(f"{name}, offset {offset}: {digest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
