"""What a rank of a partitioned plan feeds its graph and reads from it; the graph is replayed in proof."""

from __future__ import annotations

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from pangu_alpha.config.run import build_train_config
from pangu_alpha.data.batches import Batch
from pangu_alpha.training import loop, partitioned_engine
from pangu_alpha.training.guard import make_guard
from pangu_alpha.training.partitioned_engine import PartitionedEngine
from pangu_alpha.training.schedule import update_scalars

B, S, M = 2, 16, 2
PLAN = {"dp": 2, "tp": 2, "pp": 2, "micro_batches": M}


class FakeStep:
    """Stands for the graph: remembers its inputs, answers with fixed numbers."""

    def __init__(self):
        self.controls = Parameter(Tensor(np.zeros(6, np.float32)), name="controls")
        weight = Parameter(Tensor(np.arange(6, dtype=np.float32)), name="weight")
        moments = [Parameter(Tensor(np.zeros(6, np.float32)), name=f"adam_{name}.weight") for name in "mv"]
        optimizer = SimpleNamespace(parameters=[weight], moments1=moments[:1], moments2=moments[1:])
        self.update = SimpleNamespace(optimizer=optimizer)
        self.inputs = []

    def set_train(self):
        pass

    def __call__(self, *inputs):
        self.inputs.append([tensor.asnumpy() for tensor in inputs])
        return Tensor(7.0, ms.float32), Tensor(3.0, ms.float32), Tensor(True)


class FakeWorld:
    """Eight ranks that all hold this rank's numbers, but for the last one's total."""

    rank, size = 1, 8

    def gather(self, array):
        rows = np.stack([array] * self.size)
        rows[-1, -1] = 60.0
        return rows


@pytest.fixture
def config(settings):
    return build_train_config(settings | {"parallel": PLAN, "run": settings["run"] | {"batch_size": B}})


@pytest.fixture
def engine(cpu, config, monkeypatch):
    monkeypatch.setattr(partitioned_engine, "partition", lambda plan, rank: None)
    monkeypatch.setattr(partitioned_engine, "partitioned_step", lambda *arguments: FakeStep())
    return PartitionedEngine(config, FakeWorld())


def micro_batch(seed):
    random = np.random.default_rng(seed)
    integers = [random.integers(0, 50, (B, S)).astype(np.int32) for _ in range(4)]
    mask = (random.random((B, S)) < 0.5).astype(np.float32)
    return Batch(integers[0], integers[1], mask, integers[2], integers[3], np.zeros(B, np.int32))


def test_a_step_feeds_all_micro_batches_and_its_controls(engine, config):
    batches = [micro_batch(0), micro_batch(1)]
    guard = make_guard(config.run.guard, config.optim.loss_scale, "float32")
    result = engine.step(5, batches, guard)
    fed = engine._step.inputs[0]
    for place in range(5):
        assert (fed[place] == np.concatenate([batch[place] for batch in batches])).all()
    mine = sum(batch.loss_mask.sum() for batch in batches)
    scalars = update_scalars(5, config.optim)
    nominal = 2 * B * M * S  # both data-parallel ranks' tokens
    wanted = [mine, guard.scale.value / nominal, guard.largest_norm(), *vars(scalars).values()]
    np.testing.assert_allclose(engine._step.controls.asnumpy(), np.float32(wanted), rtol=1e-7)
    # eight ranks, each row on tp * pp = 4 of them; the total is the last stage's
    assert result.loss == pytest.approx(60.0 / (8 * mine / 4 + 1e-5))
    assert (result.norm, result.applied, result.row_losses.size) == (3.0, True, 0)


def test_slices_are_saved_by_name(engine):
    tensors = engine.tensors()
    assert list(tensors["model"]) == ["weight"]
    assert sorted(tensors["optimizer"]) == ["adam_m.weight", "adam_v.weight"]


def test_a_partitioned_run_with_validation_is_refused(config):
    with pytest.raises(ValueError, match=r"data\.validation: .* has no validation"):
        loop.Trainer(config, "Ascend", FakeWorld())


def test_slices_fit_only_their_plan(config):
    trainer = object.__new__(loop.Trainer)
    trainer.config, trainer.partitioned = config, True
    whole = SimpleNamespace(kind="training", config={})
    with pytest.raises(ValueError, match="holds training, this run needs slices"):
        trainer._check_kind("x", whole)
    other = SimpleNamespace(kind="slices", config={"parallel": {"dp": 4}})
    with pytest.raises(ValueError, match="slices of the plan .* resume under the plan"):
        trainer._check_kind("x", other)
