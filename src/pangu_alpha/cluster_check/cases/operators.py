"""The operators that are compared, as data: their inputs, and what they compute in NumPy's float64.

Letters as in model.operators.plain: T rows, I inputs, O outputs, H hidden, V vocabulary, B batch, N heads,
S queries, d head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SAMPLE = 4096  # elements of a tensor that are compared
MASKED_SCORE = -10000.0
DOCUMENTS = 3  # of a row in attention's mask


@dataclass(frozen=True)
class Shape:
    """Sizes of the tensors of one rank's slice.

    Args:
        rows: T.
        hidden: H, the inputs of the affine.
        outputs: O, the affine's slice.
        heads: N of the slice.
        head_size: d.
        length: S.
        vocabulary: V of the slice.
    """

    rows: int
    hidden: int
    outputs: int
    heads: int
    head_size: int
    length: int
    vocabulary: int


# The slices of one rank: 2.6B on one device, 13B over 8 and 200B over 8, with fewer rows than in training.
SHAPES = {
    "small": Shape(24, 40, 56, 3, 8, 16, 50),
    "2.6B": Shape(256, 2560, 2560, 4, 80, 1024, 5000),
    "13B/8": Shape(256, 5120, 2560, 5, 128, 1024, 5000),
    "200B/8": Shape(256, 16384, 2048, 16, 128, 1024, 5000),
}
SHAPES_OF = {"CPU": ("small", "2.6B"), "Ascend": tuple(SHAPES)}


@dataclass(frozen=True)
class Case:
    """An operator's inputs and its definition.

    Args:
        inputs: (shape, random generator) -> arrays; float64 ones are given to the operator in the type that
            is compared, others as they are.
        computes: The definition in float64, of the same arrays.
        differentiated: How many of the first inputs it is differentiated by.
        float32: Numbers of the inputs that are float32 whatever the type.
    """

    inputs: Callable[[Shape, np.random.Generator], list[np.ndarray]]
    computes: Callable[..., np.ndarray]
    differentiated: int
    float32: tuple[int, ...] = ()


def _affine_inputs(shape: Shape, random: np.random.Generator) -> list[np.ndarray]:
    weight = random.standard_normal((shape.outputs, shape.hidden)) / math.sqrt(shape.hidden)
    return [random.standard_normal((shape.rows, shape.hidden)), weight, random.standard_normal(shape.outputs)]


def _affine(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return x @ weight.T + bias


def _normalize_inputs(shape: Shape, random: np.random.Generator) -> list[np.ndarray]:
    columns = random.standard_normal((2, shape.hidden))
    return [3.0 * random.standard_normal((shape.rows, shape.hidden)), 1.0 + 0.1 * columns[0], columns[1]]


def _normalize(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def _gelu_inputs(shape: Shape, random: np.random.Generator) -> list[np.ndarray]:
    return [3.0 * random.standard_normal((shape.rows, shape.hidden))]


def _gelu(x: np.ndarray) -> np.ndarray:
    """The tanh form (Hendrycks & Gimpel, 2016)."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _attention_inputs(shape: Shape, random: np.random.Generator) -> list[np.ndarray]:
    heads = random.standard_normal((3, 1, shape.heads, shape.length, shape.head_size))
    return [*heads, document_mask(shape.length)]


def document_mask(length: int) -> np.ndarray:
    """May attend, [1, S, S], float32: to the positions of the same document that are not later."""
    documents = np.arange(length) * DOCUMENTS // length
    same = documents[:, None] == documents[None, :]
    return (np.tril(np.ones((length, length))) * same)[None].astype(np.float32)


def _attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[B*S, N*d], of [B, N, S, d]."""
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    scores = scores + (1.0 - mask[:, None]) * MASKED_SCORE
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = powers / powers.sum(-1, keepdims=True) @ value
    return mixed.transpose(0, 2, 1, 3).reshape(-1, mixed.shape[1] * mixed.shape[3])


def _loss_inputs(shape: Shape, random: np.random.Generator) -> list[np.ndarray]:
    x = random.standard_normal((shape.rows, shape.hidden))
    table = random.standard_normal((shape.vocabulary, shape.hidden)) / math.sqrt(shape.hidden)
    return [x, table, random.integers(0, shape.vocabulary, shape.rows).astype(np.int32)]


def _loss(x: np.ndarray, table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    scores = x @ table.T
    scores = scores - scores.max(-1, keepdims=True)
    chosen = np.exp(np.take_along_axis(scores, labels[:, None], 1)[:, 0])
    return -np.log(chosen / np.exp(scores).sum(-1) + 1e-24)


def _squares_inputs(shape: Shape, random: np.random.Generator) -> list[np.ndarray]:
    return [random.standard_normal((shape.rows, shape.hidden))]


def _squares(x: np.ndarray) -> np.ndarray:
    return np.square(x).sum()


CASES: Mapping[str, Case] = {
    "affine": Case(_affine_inputs, _affine, 3),
    "layer norm": Case(_normalize_inputs, _normalize, 3, (0, 1, 2)),
    "gelu": Case(_gelu_inputs, _gelu, 1),
    "attention": Case(_attention_inputs, _attention, 3),
    "cross entropy": Case(_loss_inputs, _loss, 2, (1,)),
    "sum of squares": Case(_squares_inputs, _squares, 0, (0,)),  # training differentiates none
}


def arrays_of(case: Case, shape: Shape) -> list[np.ndarray]:
    """The inputs of a case, which depend only on the shape.

    Returns:
        float64 arrays whose numbers bfloat16 and float16 hold exactly, so that no type gets other inputs;
        masks and labels as they are.
    """
    return [
        _rounded(array) if array.dtype == np.float64 else array
        for array in case.inputs(shape, np.random.default_rng(0))
    ]


def _rounded(array: np.ndarray) -> np.ndarray:
    """Keeps eight bits of every number, and nothing below float16's smallest normal number."""
    bits = array.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    kept = bits.view(np.float32)
    return np.where(np.abs(kept) < 2.0**-14, 0.0, kept).astype(np.float64)


def sampled(array: np.ndarray) -> list[float]:
    """Elements of a tensor at places that depend only on its size."""
    flat = np.asarray(array, np.float64).reshape(-1)
    if flat.size <= SAMPLE:
        return flat.tolist()
    return flat[np.random.default_rng(1).integers(0, flat.size, SAMPLE)].tolist()


def output_weights(shape: Sequence[int]) -> np.ndarray:
    """Numbers by which an operator's output is weighted into the scalar that is differentiated, float32."""
    count = int(np.prod(shape, dtype=np.int64))
    return _rounded(np.sin(np.arange(count, dtype=np.float64))).reshape(tuple(shape)).astype(np.float32)


def slopes(case: Case, arrays: Sequence[np.ndarray]) -> list[float]:
    """Derivatives of the weighted sum of the outputs along one random direction for each input, in float64.

    By a central difference, so it shares nothing with the gradients that are compared with it.
    """
    weights = output_weights(np.shape(case.computes(*arrays)))
    found, size = [], 1e-4
    for number in range(case.differentiated):
        move = direction(number, arrays[number].shape)
        ends = []
        for sign in (1.0, -1.0):
            moved = [*arrays]
            moved[number] = arrays[number] + sign * size * move
            ends.append(float((case.computes(*moved) * weights).sum()))
        found.append((ends[0] - ends[1]) / (2.0 * size))
    return found


def direction(number: int, shape: Sequence[int]) -> np.ndarray:
    """A random direction of length 1 for an input."""
    move = np.random.default_rng(100 + number).standard_normal(tuple(shape))
    return move / np.linalg.norm(move)
