"""One optimizer step as graphs: gradients of micro-batches and their sum; then clipping and update.

The loss of a step is sum(loss) / (sum(weight) + 1e-5) over all its micro-batches (2021 code, where the weight
is the number of tokens that count), so it does not matter which micro-batch a row is in. Scale and recipe are
scalar inputs; nothing here depends on time. Letters: B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from pangu_alpha.model.graph import GraphCell
from pangu_alpha.model.operators import Operators
from pangu_alpha.parallel.reductions import OneDevice
from pangu_alpha.training.optimizer import AdamW


class ScaledLoss(nn.Cell):
    """The number that is differentiated, and the values that a report needs.

    Args:
        loss: Cell of an objective; see training.objective.Objective.loss.

    Inputs:
        - **scale** (Tensor) - float32 scalar.
        - **fields** (Tensor) - the objective's fields.

    Outputs:
        (float32 scalar, scale times the sum of the losses; float32 [B], loss of each row; float32 scalar, how
        much the rows count together).
    """

    def __init__(self, loss: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.mul = ops.Mul()

    def construct(self, scale, *fields):
        total, rows, weight = self.loss(*fields)
        return self.mul(total, scale), rows, weight


class Gradients(nn.Cell):
    """Gradients of ScaledLoss with respect to the trained parameters; it has the inputs of ScaledLoss.

    Args:
        loss: Cell of an objective.
        parameters: Parameters to differentiate by; the gradients have their order.

    Outputs:
        (tuple of gradients, float32 [B] row losses, float32 scalar, how much the rows count together).
    """

    def __init__(self, loss: nn.Cell, parameters: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.loss = ScaledLoss(loss)
        self.differentiate = ops.value_and_grad(self.loss, None, parameters, has_aux=True)

    def construct(self, scale, *fields):
        (_, rows, weight), gradients = self.differentiate(scale, *fields)
        return gradients, rows, weight


# Functions of one tensor: MindSpore 2.9 compiles a map over many tensors far faster than a loop.
_square = ops.MultitypeFuncGraph("square_sum")
_clip = ops.MultitypeFuncGraph("clip")


@_square.register("Function", "Tensor")
def _square_one(square_sum, gradient):
    return square_sum(gradient)


@_clip.register("Function", "Tensor", "Tensor", "Tensor")
def _clip_one(keep_if, factor, applied, gradient):
    return keep_if(applied, gradient * factor)


class Update(nn.Cell):
    """Unscales, clips by the global norm, and applies the gradients, unless the norm is unacceptable.

    On a chip that saturates, an overflow leaves large but finite gradients. There the float status is read
    after everything that the update depends on has been computed, and if any device's status reports an
    overflow, the norm is infinite on all devices.

    Args:
        clip_norm: Largest norm that is applied; g *= 1 / max(norm / clip, 1).
        world: Cell of parallel.reductions that sums over devices; None is one device.

    Inputs:
        - **gradients** (tuple[Tensor]) - of scale times the sum of the losses.
        - **weight** (Tensor) - float32 scalar, how much the rows of that sum count together.
        - **scale** (Tensor) - float32 scalar.
        - **largest** (Tensor) - float32 scalar; a norm above it, or one that is not finite, skips the update.
        - **recipe** (Tensor) - float32 [3]: learning rate, epsilon, decay of schedule.update_scalars.
        - **computed** (any) - what else must be computed before the float status is read.

    Outputs:
        (float32 scalar gradient norm before clipping, inf if the float status reports an overflow; bool
        scalar, whether the update was applied).
    """

    def __init__(
        self, optimizer: AdamW, operators: Operators, clip_norm: float, world: nn.Cell | None = None
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.world = world or OneDevice()
        # A float status must be read between the norm and the update, which one kernel does not do.
        self.fused = (
            operators.update(optimizer, clip_norm)
            if operators.update and not operators.float_status
            else None
        )
        self.square_sum = operators.square_sum()
        self.keep_if = operators.keep_if()
        self.float_status = operators.float_status() if operators.float_status else None
        self.greater = ops.Greater()
        self.select = ops.Select()
        self.infinite = Tensor(np.inf, ms.float32)
        self.sqrt = ops.Sqrt()
        self.div = ops.Div()
        self.mul = ops.Mul()
        self.add = ops.Add()
        self.maximum = ops.Maximum()
        self.less_equal = ops.LessEqual()
        self.map = ops.HyperMap()

    def norm(self, gradients) -> Tensor:
        """Square root of the sum of squares over all tensors; inf or NaN if any element is."""
        squares = self.map(ops.partial(_square, self.square_sum), gradients)
        return self.sqrt(self.world.square_sum(squares))

    def infinite_if_overflowed(self, norm, computed) -> Tensor:
        """The norm, or inf if any device's float status reports an overflow."""
        if self.float_status is None:
            return norm
        # The status is read after the norm, which depends on all gradients, so the norm's own sum over
        # devices comes first on all of them.
        overflows = self.world.total(self.float_status((norm, computed)))
        return self.select(self.greater(overflows, 0.0), self.infinite, norm)

    def construct(self, gradients, weight, scale, largest, recipe, computed=()):
        gradients, weight = self.world.batch_sums(gradients, weight)
        if self.fused is not None:
            return self.fused(gradients, weight, scale, largest, recipe)
        unscale = self.div(1.0, self.mul(scale, self.add(weight, 1e-5)))
        norm = self.infinite_if_overflowed(self.mul(self.norm(gradients), unscale), computed)
        factor = self.div(unscale, self.maximum(self.div(norm, self.clip_norm), 1.0))
        applied = self.less_equal(norm, largest)  # false for NaN, and for inf because `largest` is finite
        clipped = self.map(ops.partial(_clip, self.keep_if, factor, applied), gradients)
        updated = self.optimizer(clipped, recipe[0], recipe[1], recipe[2], applied)
        return ops.depend(norm, updated), applied


class AccumulateStep(nn.Cell):
    """Adds a micro-batch's gradients and weight to the sums; has the inputs of Gradients, outputs row losses.

    Args:
        parameters: Trained parameters; each gets a sum named accumulated.<name>.
    """

    def __init__(self, gradients: Gradients, parameters: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.sums = parameters.clone(prefix="accumulated", init="zeros")
        self.weight = Parameter(Tensor(0.0, ms.float32), name="accumulated_weight", requires_grad=False)
        self.accumulate = ops.AssignAdd()

    def construct(self, scale, *fields):
        gradients, rows, weight = self.gradients(scale, *fields)
        for i in range(len(self.sums)):
            self.accumulate(self.sums[i], gradients[i])
        self.accumulate(self.weight, weight)
        return rows


class ApplyStep(nn.Cell):
    """Updates from the sums of an AccumulateStep and clears them.

    Args:
        accumulated: Holds the sums.
        update: Update of the same parameters.

    Inputs:
        largest, recipe and scale of Update; the outputs are those of Update as well.
    """

    def __init__(self, accumulated: AccumulateStep, update: Update) -> None:
        super().__init__(auto_prefix=False)
        self.sums = accumulated.sums
        self.weight = accumulated.weight
        self.update = update
        self.assign = ops.Assign()
        self.zeros_like = ops.ZerosLike()

    def construct(self, largest, recipe, scale):
        norm, applied = self.update(self.sums, self.weight, scale, largest, recipe)
        applied = ops.depend(applied, norm)
        for i in range(len(self.sums)):
            cleared = self.zeros_like(self.sums[i])
            self.assign(self.sums[i], cleared)
        self.assign(self.weight, self.zeros_like(self.weight))
        return norm, applied


class WholeStep(GraphCell):
    """Gradients and update as one graph; see them for inputs and outputs."""

    def __init__(self, gradients: Gradients, update: Update) -> None:
        super().__init__()
        self.gradients = gradients
        self.update = update

    def construct(self, largest, recipe, scale, *fields):
        gradients, rows, weight = self.gradients(scale, *fields)
        norm, applied = self.update(gradients, weight, scale, largest, recipe)
        return rows, norm, applied


class OptimizerStep:
    """The step of a process that holds the whole model: gradients, then the update.

    Each is a graph of its own, unless there is a single micro-batch and a kernel that applies its gradients,
    which can call what must happen between both. Parameters and moments are not changed until then, so a save
    can copy them while the gradients are computed.

    Args:
        gradients: The differentiated loss.
        update: Update of the same parameters.
        micro_batches: Number of micro-batches in a step.
    """

    def __init__(self, gradients: Gradients, update: Update, micro_batches: int) -> None:
        self.micro_batches = micro_batches
        self._float_status = update.float_status
        self._fused = update.fused
        if micro_batches > 1:
            self._accumulate = AccumulateStep(gradients, update.optimizer.parameters)
            self._apply = ApplyStep(self._accumulate, update)
        elif self._fused is not None:
            self._whole = WholeStep(gradients, update)
        else:
            self._gradients, self._update = gradients, update

    def __call__(
        self,
        inputs: Sequence[Sequence[Tensor]],
        scale: Tensor,
        largest: Tensor,
        recipe: Tensor,
        before_update: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, Tensor, Tensor]:
        """Takes one step.

        Args:
            inputs: The objective's fields of each micro-batch.
            scale, largest, recipe: See Update.
            before_update: Called when all gradients are computed, and no parameter or moment has changed yet;
                perhaps by another thread.

        Returns:
            Loss of each row of all micro-batches, float32; norm and applied of Update.
        """
        assert len(inputs) == self.micro_batches
        if self._float_status is not None:
            self._float_status.clear()  # overflows between the steps, as in a validation, do not count
        if self.micro_batches > 1:
            rows = [self._accumulate(scale, *fields).asnumpy() for fields in inputs]
            before_update()
            return np.concatenate(rows), *self._apply(largest, recipe, scale)
        (fields,) = inputs
        if self._fused is not None:
            with self._fused.preceded_by(before_update):
                rows, norm, applied = self._whole(largest, recipe, scale, *fields)
                norm.asnumpy()  # waits for the graph
            return rows.asnumpy(), norm, applied
        gradients, rows, weight = self._gradients(scale, *fields)
        losses = rows.asnumpy()  # waits for the graph
        before_update()
        # Without ms.mutable the tuple would be a constant, and MindSpore 2.9 would compile anew in every
        # step.
        return losses, *self._update(ms.mutable(gradients), weight, scale, largest, recipe)
