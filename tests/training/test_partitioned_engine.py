"""What a rank of a partitioned plan feeds its graph, reads from it, saves and loads.

The graph is replayed in proof.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from pangu_alpha.checkpoint.moving.reading import coverage_problems, read_box
from pangu_alpha.checkpoint.native.distributed import LocalParts, SharedParts, open_part, part_name
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.tensors import Box, whole
from pangu_alpha.config.run import build_train_config
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.data.batches import Batch
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.operators.ascend import FloatStatus
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.training import loop
from pangu_alpha.training.checkpoints import RunCheckpoints
from pangu_alpha.training.engine import Engine
from pangu_alpha.training.guard import make_guard
from pangu_alpha.training.partitioned import engine as partitioned_engine
from pangu_alpha.training.partitioned.engine import PartitionedEngine
from pangu_alpha.training.schedule import dropout_rows, update_scalars

B, S, M = 2, 16, 2
PLAN = {"dp": 2, "tp": 2, "pp": 2, "micro_batches": M}
FIELDS = ("input_ids", "labels", "loss_mask", "position_ids", "document_ids")
PREFIXES = ("", "adam_m.", "adam_v.")


class FakeStep:
    """Stands for the graph of a rank: remembers its inputs, answers with fixed numbers, holds slices."""

    def __init__(self, model, plan, rank, fill=None):
        self.controls = Parameter(Tensor(np.zeros(6, np.float32)), name="controls")
        placed = layouts(model, plan)
        self.own = {name: layout.start(plan, rank) for name, layout in placed.items()}
        self.own = {
            name: Box(start, placed[name].slice_shape)
            for name, start in self.own.items()
            if start is not None
        }
        groups = ([], [], [])
        for name, box in self.own.items():
            for prefix, group in zip(PREFIXES, groups, strict=True):
                values = np.zeros(box.shape) if fill is None else cut(fill[prefix + name], box)
                group.append(Parameter(Tensor(values.astype(np.float32)), name=prefix + name))
        optimizer = SimpleNamespace(parameters=groups[0], moments1=groups[1], moments2=groups[2])
        self.update = SimpleNamespace(optimizer=optimizer)
        self.inputs = []

    def set_train(self):
        pass

    def compile(self, *inputs):
        self.compiled = [(tensor.shape, tensor.dtype) for tensor in inputs]

    def __call__(self, *inputs):
        self.inputs.append([tensor.asnumpy() for tensor in inputs])
        return Tensor(7.0, ms.float32), Tensor(3.0, ms.float32), Tensor(True)


class FakeWorld:
    """Ranks that all hold this rank's numbers, but for the last one's total."""

    def __init__(self, rank=1, size=8):
        self.rank, self.size = rank, size

    def gather(self, array):
        rows = np.stack([array] * self.size)
        rows[-1, -1] = 60.0
        return rows


def cut(array, box):
    """A box of an array; what lies beyond it is zero."""
    values, inside = np.zeros(box.shape, np.float32), whole(array.shape).intersect(box)
    values[inside.within(box)] = array[inside.within(whole(array.shape))]
    return values


def random_state(model, seed=0):
    """Every parameter and both moments, whole."""
    random = np.random.default_rng(seed)
    shapes = parameter_shapes(model).items()
    return {prefix + name: random.random(shape, np.float32) for prefix in PREFIXES for name, shape in shapes}


@pytest.fixture
def config(settings):
    return build_train_config(settings | {"parallel": PLAN, "run": settings["run"] | {"batch_size": B}})


@pytest.fixture
def engine_of(cpu, monkeypatch):
    """Makes the engine of a rank of a run, its slices cut from `fill`."""

    def make(config, rank=1, fill=None):
        step = FakeStep(config.model, config.parallel, rank, fill)
        step.cuts = []
        monkeypatch.setattr(
            partitioned_engine, "partition", lambda plan, rank, inputs: step.cuts.extend(inputs)
        )
        monkeypatch.setattr(partitioned_engine, "partitioned_step", lambda *arguments: step)
        return PartitionedEngine(config, FakeWorld(rank, config.parallel.devices))

    return make


@pytest.fixture
def engine(engine_of, config):
    return engine_of(config)


def micro_batch(seed):
    random = np.random.default_rng(seed)
    integers = [random.integers(0, 50, (B, S)).astype(np.int32) for _ in range(4)]
    mask = (random.random((B, S)) < 0.5).astype(np.float32)
    fields = dict(zip(FIELDS, (*integers[:2], mask, *integers[2:]), strict=True))
    return Batch(fields, mask.sum(1), np.zeros(B, np.int32))


def test_a_step_feeds_all_micro_batches_and_its_controls(engine, config):
    batches, called = [micro_batch(0), micro_batch(1)], []
    guard = make_guard(config.run.guard, config.optim.loss_scale, "float32")
    result = engine.step(5, batches, guard, lambda: called.append(len(engine._step.inputs)))
    assert called == [0]  # a copy of the parameters ends before the graph that changes them begins
    fed = engine._step.inputs[0]
    for place, name in enumerate(FIELDS):
        assert (fed[place] == np.concatenate([batch[name] for batch in batches])).all()
    mine = sum(batch["loss_mask"].sum() for batch in batches)
    scalars = update_scalars(5, config.optim)
    nominal = 2 * B * M * S  # both data-parallel ranks' tokens
    wanted = [mine, guard.scale.value / nominal, guard.largest_norm(), *vars(scalars).values()]
    np.testing.assert_allclose(engine._step.controls.asnumpy(), np.float32(wanted), rtol=1e-7)
    # eight ranks, each row on tp * pp = 4 of them; the total is the last stage's
    assert result.loss == pytest.approx(60.0 / (8 * mine / 4 + 1e-5))
    assert (result.norm, result.applied, result.row_losses.size) == (3.0, True, 0)


@pytest.mark.parametrize(("rank", "data_rank"), [(1, 0), (2, 1), (7, 1)])
def test_the_keys_of_dropout_are_those_of_the_rank_s_rows_in_the_step(engine_of, config, rank, data_rank):
    engine, guard = engine_of(config, rank), make_guard(config.run.guard, config.optim.loss_scale, "float32")
    engine.compile()
    engine.step(5, [micro_batch(0), micro_batch(1)], guard)
    (fed,) = engine._step.inputs
    whole = dropout_rows(config.run.seed, 5, range(2 * B * M), S)  # of both data-parallel ranks
    mine = [2 * B * number + B * data_rank + row for number in range(M) for row in range(B)]
    assert np.array_equal(fed[5], whole[mine])
    assert engine._step.cuts == [(2, 1)] * 6  # rows over dp, as MindSpore is told
    assert [(each.shape, each.dtype.name) for each in fed] == [
        (shape, ms.dtype_to_nptype(dtype).__name__) for shape, dtype in engine._step.compiled
    ]


def test_without_dropout_there_are_no_keys(engine_of, settings, config):
    values = settings | {"parallel": PLAN, "run": settings["run"] | {"batch_size": B}}
    engine = engine_of(build_train_config(values | {"model": settings["model"] | {"dropout": 0.0}}))
    engine.compile()
    engine.step(
        5, [micro_batch(0), micro_batch(1)], make_guard(config.run.guard, config.optim.loss_scale, "float32")
    )
    assert len(engine._step.inputs[0]) == len(engine._step.compiled) == 5


def test_the_bias_correction_counts_applied_updates(engine_of, settings):
    optim = settings["optim"] | {"bias_correction": True}
    config = build_train_config(settings | {"parallel": PLAN, "optim": optim})
    guard, engine = make_guard(config.run.guard, config.optim.loss_scale, "float16"), engine_of(config)
    guard.observe(np.inf, False)
    engine.step(5, [micro_batch(0), micro_batch(1)], guard)
    scalars = update_scalars(5, config.optim, skipped=1)
    assert scalars != update_scalars(5, config.optim)
    wanted = np.float32([*vars(scalars).values()])
    np.testing.assert_array_equal(engine._step.controls.asnumpy()[3:], wanted)


FLOAT32_MAX = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("told", [np.inf, FLOAT32_MAX])  # a chip that saturates may give the latter for inf
def test_an_overflow_that_the_chip_tells_lowers_the_scale(engine_of, settings, monkeypatch, told):
    """The register is cleared before each step's graph; 2^32 falls to 2^13 without using up the limit."""
    run = settings["run"] | {"chip": "910A", "guard": {"max_skipped": 3}}
    config = build_train_config(settings | {"parallel": PLAN, "run": run})
    order = []
    monkeypatch.setattr(FloatStatus, "clear", lambda: order.append("cleared"))
    monkeypatch.setattr(partitioned_engine, "operators_for", plain_operators)
    engine = engine_of(config)

    def graph(*inputs):
        order.append("run")
        fits = engine._step.controls.asnumpy()[1] * engine._nominal_weight <= 2.0**13
        return Tensor(7.0, ms.float32), Tensor(3.0 if fits else told, ms.float32), Tensor(bool(fits))

    engine._step = graph_with(engine._step, graph)
    guard = make_guard(config.run.guard, config.optim.loss_scale, "float16")
    for step in range(20):
        result = engine.step(step, [micro_batch(0), micro_batch(1)], guard)
        assert result.norm == (3.0 if result.applied else np.inf)
        guard.observe(result.norm, result.applied)
    assert (guard.scale.value, guard.skipped, guard.skipped_in_row, guard.steps) == (2.0**13, 19, 0, 1)
    assert order == ["cleared", "run"] * 20


def plain_operators(model, device, **others):
    return operators_for(model, "plain", **others)


def graph_with(step, run):
    """A step's parameters with another graph."""

    class Other:
        controls, update = step.controls, step.update
        __call__ = staticmethod(run)

    return Other()


def test_a_chip_with_inf_and_nan_has_no_register_to_clear(engine, monkeypatch):
    monkeypatch.setattr(FloatStatus, "clear", lambda: pytest.fail("cleared"))
    guard = make_guard(engine.config.run.guard, engine.config.optim.loss_scale, "float16")
    assert engine.step(5, [micro_batch(0), micro_batch(1)], guard).norm == 3.0


def save(config, engine_of, fill, root):
    """A checkpoint by all ranks of a plan, one after the other, rank 0 last."""
    ranks = config.parallel.devices
    for rank in reversed(range(ranks)):
        engine = engine_of(config, rank, fill)
        arrays = {}
        for stem, name, values in engine.tensors():
            arrays.setdefault(stem, {})[name] = values
        manifest = Manifest(4, samples=64, config=to_mapping(config), slices=engine.slices())
        path = SharedParts(CheckpointStore(root), rank, ranks, "me").save(arrays, manifest)
    return path


PLANS = [
    {"dp": 2, "tp": 2, "pp": 2, "micro_batches": 2, "optimizer_parallel": "level1", "optimizer_threshold": 0},
    {"dp": 4, "pp": 2, "micro_batches": 2, "layers_per_stage": [2, 1]},
    {"tp": 4, "dp": 2, "optimizer_parallel": "level1", "optimizer_threshold": 1},
]


def test_slices_of_a_plan_are_loaded_under_any_other(engine_of, settings, tmp_path):
    settings["model"]["vocab_size"] = 61  # padded under tp
    configs = [build_train_config(settings | {"parallel": plan}) for plan in PLANS]
    fill = random_state(configs[0].model)
    for number, config in enumerate(configs):
        path = save(config, engine_of, fill, tmp_path / str(number))
        for other in configs:
            for rank in range(other.parallel.devices):
                engine = engine_of(other, rank)
                source = open_source(
                    path, boxes={name: engine._box(name) for name in engine._groups()["model"]}
                )
                engine.load(source, ["model", "optimizer"], verify=True)
                held = [entry for stem in engine._groups().values() for entry in stem.items()]
                assert len(held) == 3 * len(engine._step.own)
                for name, parameter in held:
                    expected = cut(fill[name], engine._box(name))
                    np.testing.assert_array_equal(parameter.asnumpy(), expected, err_msg=name)


def test_a_rank_that_resumes_opens_the_parts_it_reads(engine_of, settings, crowd):
    config = build_train_config(settings | {"parallel": PLANS[0]})
    ranks, fill = config.parallel.devices, random_state(config.model)
    save(config, engine_of, fill, Path(config.run.output) / "checkpoints")
    starts = crowd(ranks).run(lambda group: RunCheckpoints(config, group, partitioned=True).find())
    for rank, start in enumerate(starts):
        groups = start.source.tensors.values()
        pieces = [piece for group in groups for stored in group.values() for piece in stored.pieces]
        stage = {part_name(each) for each in range(ranks) if each // 4 == rank // 4}
        assert {piece.file.parent.name for piece in pieces} <= stage
        engine_of(config, rank).load(start.source, ["model", "optimizer"], verify=True)


def test_one_process_loads_slices(engine_of, settings, tmp_path):
    config = build_train_config(settings | {"parallel": PLANS[0]})
    fill = random_state(config.model)
    source = open_source(save(config, engine_of, fill, tmp_path))
    engine = Engine(build_train_config(settings))
    engine.load(source, ["model", "optimizer"], verify=False)
    found = {name: array for _, name, array in engine.tensors()}
    assert found.keys() == fill.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, fill[name], err_msg=name)
    other = build_train_config(settings | {"model": settings["model"] | {"num_layers": 4}})
    with pytest.raises(ValueError, match=r"16 tensors do not fit the 69 expected.*\n.*missing: blocks.2"):
        Engine(other).load(source, ["model"], verify=False)


def test_node_local_parts_hold_all_that_their_rank_needs(engine_of, settings, tmp_path):
    settings["run"]["checkpoint"]["storage"] = "local"
    config = build_train_config(settings | {"parallel": PLANS[0]})
    fill, plan = random_state(config.model), to_mapping(config.parallel)
    for rank in range(config.parallel.devices):
        engine = engine_of(config, rank, fill)
        arrays = {}
        for stem, name, values in engine.tensors():
            arrays.setdefault(stem, {})[name] = values
        manifest = Manifest(4, samples=64, config=to_mapping(config), slices=engine.slices())
        part = LocalParts(CheckpointStore(tmp_path), rank, "me", plan).save(arrays, manifest)
        restored = engine_of(config, rank)
        restored.load(open_part(part), ["model", "optimizer"], verify=True)
        for (_, name, array), (_, _, original) in zip(restored.tensors(), engine.tensors(), strict=True):
            np.testing.assert_array_equal(array, original, err_msg=name)
    stored = open_source(tmp_path).tensors  # all parts together are a whole checkpoint, each slice once
    for stem, group in stored.items():
        for name, each in group.items():
            assert coverage_problems(name, each) == []
            np.testing.assert_array_equal(read_box(each, whole(each.shape)), fill[name], err_msg=stem)


def test_a_partitioned_run_with_validation_is_refused(config):
    with pytest.raises(ValueError, match=r"data\.validation: .* has no validation"):
        loop.Trainer(config, "Ascend", FakeWorld())
