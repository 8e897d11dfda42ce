"""AdamW as in the official code: decoupled decay on matrices and tables, none on biases and norms."""

from __future__ import annotations

from collections.abc import Mapping

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from pangu_alpha.config.optim import OptimConfig

_update = ops.MultitypeFuncGraph("adamw_update")


@_update.register("Function", "Tuple", *["Tensor"] * 5)
def _update_one(kernel, recipe, is_decayed, gradient, parameter, moment1, moment2):
    """Updates one parameter; MindSpore 2.9 compiles a map over many parameters far faster than a loop."""
    rate, beta1, beta2, epsilon, decay = recipe
    own = decay * is_decayed
    return kernel(parameter, moment1, moment2, rate, beta1, beta2, epsilon, own, gradient)


class AdamW(nn.Cell):
    """m and v are running means of g and g^2; p -= lr (m / (sqrt(v) + eps) + wd p).

    The factors that depend on time are inputs (see schedule.update_scalars), so the cell has no clock.

    Args:
        parameters: The parameters to train.
        optim: Gives the betas; the rest of the recipe is in the inputs.
        decayed: Whether weight decay applies to a parameter, by its name.

    Inputs:
        - **gradients** (tuple[Tensor]) - one for each parameter, float32, finite.
        - **learning_rate**, **epsilon**, **decay** (Tensor) - float32 scalars.
        - **applied** (Tensor) - bool scalar; False leaves parameters and moments unchanged.

    Outputs:
        Tuple to depend on; the parameters and moments are updated in place.
    """

    def __init__(
        self, parameters: tuple[Parameter, ...], optim: OptimConfig, decayed: Mapping[str, bool]
    ) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.moments1 = self.parameters.clone(prefix="adam_m", init="zeros")
        self.moments2 = self.parameters.clone(prefix="adam_v", init="zeros")
        self.decayed = tuple(Tensor(float(decayed[p.name]), ms.float32) for p in parameters)
        self.beta1 = optim.beta1
        self.beta2 = optim.beta2
        self.kernel = ops.AdamWeightDecay()
        self.map = ops.HyperMap()
        self.select = ops.Select()

    def construct(self, gradients, learning_rate: Tensor, epsilon: Tensor, decay: Tensor, applied: Tensor):
        # There is no branch, because in-place updates in a branch do not see values set from outside
        # (MindSpore 2.9), and because a partitioner needs a graph without branches. A decay of 1 keeps a
        # moment bit for bit.
        rate = self.select(applied, learning_rate, Tensor(0.0, ms.float32))
        beta1 = self.select(applied, Tensor(self.beta1, ms.float32), Tensor(1.0, ms.float32))
        beta2 = self.select(applied, Tensor(self.beta2, ms.float32), Tensor(1.0, ms.float32))
        step = ops.partial(_update, self.kernel, (rate, beta1, beta2, epsilon, decay))
        return self.map(step, self.decayed, gradients, self.parameters, self.moments1, self.moments2)
