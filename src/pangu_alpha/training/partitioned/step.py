"""The optimizer step as one graph that MindSpore splits over devices: micro-batches, their sum, the update.

training.step has loss scaling, clipping and update; this module only passes micro-batches through one graph.
Letters: M micro-batches, B rows of one micro-batch on all devices.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.parallel.nn import GradAccumulation, Pipeline

from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.model.operators import Operators
from pangu_alpha.network.parameters import decayed
from pangu_alpha.parallel.apply import apply_plan
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.reductions import Partitioned
from pangu_alpha.parallel.sharding import table_of
from pangu_alpha.training.objective import Objective
from pangu_alpha.training.optimizer import AdamW
from pangu_alpha.training.step import Update

_clear = ops.MultitypeFuncGraph("clear")


@_clear.register("Tensor")
def _clear_one(total):
    # x < x is 0 also for NaN. MindSpore 2.9 folds ZerosLike(x) and x * 0 into dense constants, which take
    # gigabytes for a large model, and x - x would keep the NaN of an overflow forever.
    return ops.assign(total, ops.cast(ops.less(total, total), ms.float32))


class PartitionedStep(nn.Cell):
    """A whole optimizer step under a plan.

    Values that change from step to step, apart from the batch, are in the parameter `controls`, float32 [6]:
    weight of this device's rows, scale, largest, learning rate, epsilon, decay (see step.Update). They are
    not inputs, and the weight is not summed here, because MindSpore 2.9 takes every input of a partitioned
    graph for rows of the batch, and does not find the pipeline if an input is used outside the network.

    Args:
        loss: The loss of a micro-batch, Objective.partitioned_loss, with its operators split by `apply_plan`.
        parameters: All parameters of the network, first those that this rank's stage trains.
        update: The update of the latter, with the sums of parallel.reductions.Partitioned.
        plan: Gives micro-batches, stages and optimizer parallelism.

    Inputs:
        - **batch** (Tensor) - the objective's fields of all micro-batches, [M * B, ...] each.

    Outputs:
        (float32 scalar, sum of the losses over the whole batch, valid on the last stage; float32 scalar
        gradient norm; bool scalar applied).
    """

    def __init__(self, loss: nn.Cell, parameters: ParameterTuple, update: Update, plan: ParallelPlan) -> None:
        super().__init__(auto_prefix=False)
        self.accumulates = plan.micro_batches > 1
        # MindSpore 2.9 finds the sums by this prefix. It leaves the result in them, or in the gradients if
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
        # All devices sum the tokens together. Without this edge, each compiler may run that sum before or
        # after the transfers between stages, and two stages that choose differently wait for each other
        # forever. The gradient that the last stage sends to the first is among these gradients, although no
        # update here uses it.
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


def partitioned_step(
    objective: Objective,
    optim: OptimConfig,
    plan: ParallelPlan,
    rank: int,
    operators: Operators,
    by_table: bool = True,
) -> PartitionedStep:
    """Makes the step of a plan without values, in the context set by parallel.context.partition.

    MindSpore 2.9 allocates a parameter when the step is compiled: zeros for this rank's slice, and nothing
    for parameters of other stages.

    Args:
        objective: An objective that MindSpore can split.
        optim: Recipe of the optimizer.
        plan: A plan that fits the network.
        rank: Rank of this process; each rank compiles the graph of its own stage.
        operators: The device's operators.
        by_table: Whether operators are split by the plan's table; otherwise MindSpore searches for splits.
    """
    assert objective.splits
    model = objective.network(operators)
    placed = layouts(objective.config.model, plan)
    loss = objective.partitioned_loss(model)
    apply_plan(loss, model, plan, table_of(plan) if by_table else None)
    stage = Mesh.of(plan).stage_of(rank)
    parameters = model.trainable_params()
    own = [parameter for parameter in parameters if stage == placed[parameter.name].stage]
    others = [parameter for parameter in parameters if stage != placed[parameter.name].stage]
    shares = [placed[parameter.name].share(plan) for parameter in own]
    sums = Partitioned(shares, row_share=1 / Mesh.of(plan).row_holders)
    optimizer = AdamW(tuple(own), optim, decayed(objective.config.model))
    update = Update(optimizer, operators, optim.clip_norm, sums)
    return PartitionedStep(loss, ParameterTuple([*own, *others]), update, plan)
