"""The optimizer step as one graph that MindSpore splits over devices: micro-batches, their sum, the update.

Loss, optimizer and clipping are those of step.py; here is only how micro-batches pass through one graph.
Letters: M micro-batches, B rows of one micro-batch on all devices, S sequence.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.parallel.nn import GradAccumulation, Pipeline

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.model.operators import Operators
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.parallel.apply import apply_plan
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.reductions import Partitioned
from pangu_alpha.training.loss import TokenLoss
from pangu_alpha.training.optimizer import AdamW
from pangu_alpha.training.step import Update

_INPUTS = 5  # input_ids, labels, loss_mask, position_ids, document_ids

_clear = ops.MultitypeFuncGraph("clear")


@_clear.register("Tensor")
def _clear_one(total):
    # x < x is 0 for NaN, too. MindSpore 2.9 folds ZerosLike(x) and x * 0 into dense constants, gigabytes of
    # them for a large model; x - x would keep the NaN of an overflow for ever.
    return ops.assign(total, ops.cast(ops.less(total, total), ms.float32))


class MicroBatchLoss(nn.Cell):
    """sum(nll * mask) of one micro-batch; compiled once and called for each.

    Args:
        token_loss: The network and the loss of every token.

    Inputs:
        - **input_ids**, **labels** (Tensor) - int32 [B, S].
        - **loss_mask** (Tensor) - float32 [B, S], 1 = counts.
        - **position_ids**, **document_ids** (Tensor) - int32 [B, S].
        - **dropout_rows** (Tensor) - int32 [B, S], the dropout's key of each row; left out without dropout.

    Outputs:
        Tensor, float32 scalar, nats.
    """

    @ms.lazy_inline
    def __init__(self, token_loss: TokenLoss) -> None:
        super().__init__(auto_prefix=False)
        self.token_loss = token_loss
        self.mul = ops.Mul()
        self.sum = ops.ReduceSum()

    def construct(self, input_ids, labels, loss_mask, position_ids, document_ids, dropout_rows=None):
        nll = self.token_loss(input_ids, labels, position_ids, document_ids, dropout_rows)
        return self.sum(self.mul(nll, loss_mask))


class PartitionedStep(nn.Cell):
    """A whole optimizer step of a plan.

    Args:
        loss: The micro-batch's loss, its operators split by `apply_plan`.
        parameters: All of the network's, those that this rank's stage trains first.
        update: Of the latter, with the sums of parallel.reductions.Partitioned.
        plan: Micro-batches, stages, optimizer parallelism.

    What changes from step to step besides the batch is in the parameter `controls`, float32 [6]: the tokens
    that count in this device's rows, scale, largest, learning rate, epsilon, decay (see step.Update). They
    are no inputs, and the tokens not counted here, since MindSpore 2.9 takes every input of a partitioned
    graph for rows of the batch, and finds no pipeline if one of them is used outside the network.

    Inputs:
        - **batch** (Tensor) - inputs of MicroBatchLoss for all micro-batches, [M * B, S] each.

    Outputs:
        (float32 scalar sum(nll * mask) over the whole batch, valid on the last stage; float32 scalar gradient
        norm; bool scalar applied).
    """

    def __init__(
        self, loss: MicroBatchLoss, parameters: ParameterTuple, update: Update, plan: ParallelPlan
    ) -> None:
        super().__init__(auto_prefix=False)
        self.accumulates = plan.micro_batches > 1
        # MindSpore finds the sums by this prefix; it leaves the result in them, or in the gradients where
        # the optimizer is sharded.
        self.sums = parameters.clone(prefix="accu_grads", init="zeros") if self.accumulates else ()
        self.sums_hold_result = plan.optimizer_parallel == "none"
        self.network = loss
        if plan.pp > 1:
            self.network = Pipeline(loss, plan.micro_batches)
        elif self.accumulates:
            self.network = GradAccumulation(loss, plan.micro_batches)
        self.parameters = parameters
        self.own = len(update.optimizer.parameters)
        self.controls = Parameter(Tensor(np.zeros(6, np.float32)), name="controls", requires_grad=False)
        self.update = update
        self.differentiate = ops.GradOperation(get_by_list=True, sens_param=True)
        self.map = ops.HyperMap()

    def construct(self, *batch):
        tokens, scale, largest = self.controls[0], self.controls[1], self.controls[2]
        recipe = self.controls[3:]
        loss = self.network(*batch)
        gradients = self.differentiate(self.network, self.parameters)(*batch, scale)
        # All devices sum the tokens together. Without this edge each compiler is free to run that sum before
        # or after the transfers between stages, and two stages that choose differently wait for ever. The
        # gradient that the last stage sends to the first is among these, though no update uses it here.
        tokens = ops.depend(tokens, gradients)
        if not self.accumulates:
            norm, applied = self.update(
                gradients[: self.own], tokens, scale, largest, recipe, (loss, gradients)
            )
            return loss, norm, applied
        sums = ops.depend(self.sums, gradients)
        result = sums if self.sums_hold_result else gradients
        norm, applied = self.update(result[: self.own], tokens, scale, largest, recipe, (loss, gradients))
        return ops.depend(loss, self.map(_clear, ops.depend(sums, applied))), norm, applied


def step_inputs(config: ModelConfig) -> int:
    """How many tensors a step of the network takes: those of a batch, and with dropout each row's keys."""
    return _INPUTS + bool(config.dropout)


def partitioned_step(
    config: ModelConfig,
    optim: OptimConfig,
    plan: ParallelPlan,
    rank: int,
    operators: Operators,
    by_table: bool = True,
) -> PartitionedStep:
    """The step of a plan without values, for the context set by parallel.context.partition.

    MindSpore 2.9 gives a parameter its memory when the step is compiled: zeros of this rank's slice, and none
    for what only other stages hold.

    Args:
        config: The network's shape.
        optim: Recipe.
        plan: A plan that fits the network.
        rank: Of this process; each compiles its own stage's graph.
        operators: The device's.
        by_table: See apply_plan.
    """
    model = PanguAlpha(config, None, operators)
    shapes = {parameter.name: parameter.shape for parameter in model.trainable_params()}
    placed = layouts(shapes, config, plan)
    loss = MicroBatchLoss(TokenLoss(model))
    apply_plan(loss, model, plan, by_table)
    stage = Mesh.of(plan).stage_of(rank)
    parameters = model.trainable_params()
    own = [parameter for parameter in parameters if stage == placed[parameter.name].stage]
    others = [parameter for parameter in parameters if stage != placed[parameter.name].stage]
    shares = [placed[parameter.name].share(plan) for parameter in own]
    sums = Partitioned(shares, row_share=1 / (plan.tp * plan.pp))
    update = Update(AdamW(tuple(own), optim), operators, optim.clip_norm, sums)
    return PartitionedStep(loss, ParameterTuple([*own, *others]), update, plan)
