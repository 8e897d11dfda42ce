"""AdamW as the official code trains: decoupled decay on matrices and tables, none on biases and norms."""

from __future__ import annotations

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from pangu_alpha.config.optim import OptimConfig


def is_decayed(name: str) -> bool:
    """Whether weight decay acts on a parameter: not on biases and norms, but on embedding tables (2021)."""
    return not name.endswith(("bias", "gamma", "beta"))


class AdamW(nn.Cell):
    """m and v are running means of g and g^2; p -= lr (m / (sqrt(v) + eps) + wd p).

    The time-dependent factors come in as inputs (see schedule.update_scalars), so the cell has no clock.

    Args:
        parameters: What is trained.
        optim: Betas; the rest comes in step by step.

    Inputs:
        - **gradients** (tuple[Tensor]) - one for each parameter, float32.
        - **learning_rate**, **epsilon**, **decay** (Tensor) - float32 scalars.

    Outputs:
        bool Tensor or tuple to depend on; the parameters and moments are updated in place.
    """

    def __init__(self, parameters: tuple[Parameter, ...], optim: OptimConfig) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.moments1 = self.parameters.clone(prefix="adam_m", init="zeros")
        self.moments2 = self.parameters.clone(prefix="adam_v", init="zeros")
        self.decayed = tuple(is_decayed(parameter.name) for parameter in parameters)
        self.beta1 = optim.beta1
        self.beta2 = optim.beta2
        self.update = ops.AdamWeightDecay()

    def construct(self, gradients, learning_rate: Tensor, epsilon: Tensor, decay: Tensor):
        done = ()
        for i in range(len(self.parameters)):
            p, m, v = self.parameters[i], self.moments1[i], self.moments2[i]
            rate = decay if self.decayed[i] else 0.0
            done += (
                self.update(p, m, v, learning_rate, self.beta1, self.beta2, epsilon, rate, gradients[i]),
            )
        return done
