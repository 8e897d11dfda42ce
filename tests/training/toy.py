"""A network of another kind: it learns to hear what another network, which stays as it is, sees.

Two towers read two columns of other records; the seeing one is frozen. All that makes it known is
`register`. As a program: `toy.py train ...` and `toy.py merge ...` are train.py and merge_checkpoint.py.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from pangu_alpha.config.model_families import register_family
from pangu_alpha.config.schema import validate
from pangu_alpha.data.batches import Batch, Source, TrainingBatches, ValidationBatches
from pangu_alpha.network.parameters import register_rows
from pangu_alpha.network.rows import Constant, Normal, Row, Stage

COUNT = "count.txt"


@dataclass(frozen=True)
class ToyConfig:
    """Columns C of a record, width W of a tower."""

    columns: int
    width: int = 8
    family: Literal["toy"] = "toy"
    compute_dtype: str = "float32"
    activation: str = "gelu"
    dropout: float = 0.0

    meaning: ClassVar = {"width": "its towers have that many rows"}

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        if self.width < 1:
            yield f"width: {self.width} must be at least 1"

    def misfits(self, plan) -> Iterator[str]:
        if self.width % plan.tp:
            yield f"tp: {plan.tp} does not divide the width {self.width}"

    @property
    def parameter_count(self) -> int:
        return 2 * self.width * (self.columns + 1)


ROWS = tuple(
    row
    for tower in ("seeing", "hearing")
    for row in (
        Row(f"{tower}.weight", "W C", Normal(0.5), True, ("tp", None), Stage.FIRST),
        Row(f"{tower}.bias", "W", Constant(0.1), False, ("tp",), Stage.FIRST),
    )
)


def write_records(folder: Path, seed: int, count: int, columns: int) -> None:
    """Pairs of an image and its sound, two columns of one MindRecord file."""
    from mindspore.mindrecord import FileWriter

    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    images = random.standard_normal((count, columns)).astype(np.float32)
    writer = FileWriter(str(folder / "pairs.mindrecord"), 1)
    kind = {"type": "float32", "shape": [columns]}
    writer.add_schema({"image": kind, "sound": kind})
    writer.write_raw_data([{"image": each, "sound": each[::-1].copy()} for each in images])
    writer.commit()
    (folder / COUNT).write_text(str(count))


class Pairs:
    """A folder of such records, as data.batches.StoredRecords."""

    def __init__(self, folder: str) -> None:
        self.files = [str(Path(folder) / "pairs.mindrecord")]
        self.count = int((Path(folder) / COUNT).read_text())
        self.digest = hashlib.sha256(Path(self.files[0]).read_bytes()).hexdigest()


class PairCollation:
    """As data.batches.Collation; a pair counts 1, one that fills up a batch is zero and counts 0."""

    columns = ("image", "sound")

    def batch(self, columns, samples, source_ids) -> Batch:
        fields = {"sound": columns["sound"], "image": columns["image"]}
        counts = np.abs(columns["image"]).max(1) > 0
        return Batch(fields, counts.astype(np.float32), np.asarray(source_ids, np.int32))

    def filled(self, columns, rows):
        missing = rows - len(columns["image"])
        return {name: np.pad(array, ((0, missing), (0, 0))) for name, array in columns.items()}


def register() -> None:
    """Makes the toy known; there is nothing else to be told anywhere."""
    from mindspore import Parameter, Tensor, nn, ops

    from pangu_alpha.training.hooks.hook import Hook
    from pangu_alpha.training.objective import Field, Objective, Streams
    from pangu_alpha.training.objectives import register_objective
    from pangu_alpha.training.reporting.units import Units

    class Tower(nn.Cell):
        def __init__(self, config: ToyConfig) -> None:
            super().__init__()
            shape = (config.width, config.columns)
            self.weight = Parameter(Tensor(np.zeros(shape, np.float32)), name="weight")
            self.bias = Parameter(Tensor(np.zeros(config.width, np.float32)), name="bias")

        def construct(self, x):
            return ops.tanh(ops.matmul(x, self.weight.T) + self.bias)

    class Towers(nn.Cell):
        def __init__(self, config: ToyConfig) -> None:
            super().__init__()
            self.seeing, self.hearing = Tower(config), Tower(config)

    class Distance(nn.Cell):
        def __init__(self, towers: Towers) -> None:
            super().__init__(auto_prefix=False)
            self.towers = towers

        def construct(self, sound, image, noise):
            difference = self.towers.hearing(sound + noise) - self.towers.seeing(image)
            rows = ops.ReduceSum()(difference * difference, 1)
            return ops.ReduceSum()(rows), rows, ops.ReduceSum()(ops.ones_like(rows))

    class RunningMean(Hook):
        """Of the loss; its state is two numbers."""

        name, every = "mean", 1

        def __init__(self) -> None:
            self.steps, self.mean = 0, 0.0

        def run(self, place, done) -> None:
            self.steps += 1
            self.mean += (done.result.loss - self.mean) / self.steps

        def state(self):
            return {"steps": self.steps, "mean": self.mean}

        def restore(self, state) -> None:
            if not isinstance(state, dict) or state.keys() != {"steps", "mean"}:
                raise ValueError(f"not a running mean: {state!r}")
            self.steps, self.mean = state["steps"], state["mean"]

    class ToyObjective(Objective):
        def __init__(self, config) -> None:
            super().__init__(config)
            row = (config.model.columns,)
            read = (Field("sound", np.float32, row), Field("image", np.float32, row))
            self.fields = (*read, Field("noise", np.float32, row, drawn=True))
            self.units = Units("Toy", "squared distance", "pairs", 1, 12 * config.model.parameter_count)
            self.nominal_weight = 1

        @property
        def trained(self):
            return ("hearing.weight", "hearing.bias")

        def network(self, operators):
            return Towers(self.config.model)

        def loss(self, network):
            return Distance(network)

        def validation_loss(self, network):
            return Distance(network)

        def draw(self, step, rows):
            shape, seed = self.fields[-1].shape, self.config.run.seed
            drawn = [np.random.default_rng([seed, step, int(n)]).standard_normal(*shape) for n in rows]
            return {"noise": 0.1 * np.float32(drawn)}

        def open_data(self, rank, world_size):
            data, run, place = self.config.data, self.config.run, {"rank": rank, "world_size": world_size}
            sources = [Source(name, Pairs(each.records), each.weight) for name, each in data.train.items()]
            collation = PairCollation()
            training = TrainingBatches(sources, collation, run.batch_size, run.seed, data.shuffle, **place)
            held_out = Pairs(data.validation)
            return Streams(training, ValidationBatches(held_out, collation, run.batch_size, **place))

        def measure(self, loss, batches, world):
            total = np.zeros(2)
            for batch in batches:
                silent = Tensor(np.zeros_like(batch["sound"]))
                rows = loss(Tensor(batch["sound"]), Tensor(batch["image"]), silent)[1].asnumpy()
                total += float(rows @ batch.weights), float(batch.weights.sum())
            distance, pairs = world.gather(total).sum(0).tolist()
            return {"validation_loss": distance / pairs, "validation_pairs": int(pairs)}

        def hooks(self, run):
            return [RunningMean()]

    register_objective(ToyConfig, ToyObjective)


register_family("toy", ToyConfig)
register_rows(ToyConfig, ROWS, {"W": "width", "C": "columns"})

if __name__ == "__main__":
    from pangu_alpha.cli import merge_checkpoint, run_main, train

    sys.modules["toy"] = sys.modules["__main__"]
    command = sys.argv.pop(1)
    if command == "train":
        register()
    run_main({"train": train.main, "merge": merge_checkpoint.main}[command])
