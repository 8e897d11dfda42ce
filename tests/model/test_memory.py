"""Memory of large pages: parameters keep their values, lie side by side, and stay where they are."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor

from pangu_alpha.model.operators.native.memory import pack, touch


def parameters():
    random = np.random.default_rng(0)
    return [
        Parameter(Tensor(random.normal(size=shape).astype(np.float32))) for shape in ((3, 5), (17,), (64, 8))
    ]


def test_parameters_keep_their_values_and_lie_side_by_side():
    given = parameters()
    values = [each.asnumpy().copy() for each in given]
    memory = pack(given)
    assert [each.data_ptr() - memory.ctypes.data for each in given] == [0, 64, 192]
    assert all(np.array_equal(each.asnumpy(), value) for each, value in zip(given, values, strict=True))
    assert pack(given) is memory


def test_touched_memory_keeps_its_values():
    memory = pack(parameters())
    before = memory.copy()
    touch(memory)
    assert np.array_equal(memory, before) and before.any()


def test_zeros_are_zeros():
    given = [Parameter(Tensor(np.zeros((4, 4), np.float32)))]
    touch(pack(given, zeros=True))
    assert not given[0].asnumpy().any()
