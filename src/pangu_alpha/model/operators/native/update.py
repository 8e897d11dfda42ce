"""The optimizer's part of a step as one kernel; training.step and training.optimizer define it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from pangu_alpha.model.operators.native.library import library
from pangu_alpha.model.operators.native.training import kernel, writes_in_place

_Call = ctypes.CFUNCTYPE(ctypes.c_int)


class ClippedAdamW(nn.Cell):
    """Unscales, clips and applies the gradients of all parameters, unless their norm is unacceptable.

    Args:
        optimizer: training.optimizer.AdamW of these parameters.
        clip_norm: See training.step.Update.

    Inputs:
        Gradients, weight, scale, largest and recipe of training.step.Update.

    Outputs:
        (float32 scalar, norm before clipping; bool scalar, whether the update was applied).
    """

    def __init__(self, optimizer: Any, clip_norm: float) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = optimizer.parameters
        self.moments1 = optimizer.moments1
        self.moments2 = optimizer.moments2
        self.decayed = Tensor([float(each.asnumpy()) for each in optimizer.decayed], ms.float32)
        self.before_update = ctypes.CDLL(str(library())).pangu_before_update
        self.constants = Tensor([optimizer.beta1, optimizer.beta2, clip_norm], ms.float32)
        count = len(self.parameters)
        self.update = writes_in_place(
            kernel("ClippedAdamW", lambda *shapes: [[1], [1]], [ms.float32, ms.bool_]), 3 * count, count + 6
        )

    def construct(self, gradients, weight, scale, largest, recipe):
        state = (*self.parameters, *self.moments1, *self.moments2)
        norm, applied = self.update(
            *state, *gradients, self.decayed, weight, scale, largest, recipe, self.constants
        )
        return norm.reshape(()), applied.reshape(())

    @contextmanager
    def preceded_by(self, call: Callable[[], None]) -> Iterator[None]:
        """Within this block, the kernel calls a function when the gradients and their norm are computed.

        Parameters and moments do not change before the function returns, nor if it raises an error. The error
        is raised at the end of the block, before which the graph must have ended.
        """
        errors: list[BaseException] = []

        def called() -> int:
            try:
                call()
            except BaseException as error:  # no error can pass through the kernel, so it is raised behind it
                errors.append(error)
            return len(errors)

        function = _Call(called)
        self.before_update(function)
        try:
            yield
        finally:
            self.before_update(None)
        if errors:
            raise errors[0]
