"""Summarises the dry run of a rank: compile time, memory, placements, strategies, checked traffic."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pangu_alpha.config.families import FAMILIES, compute_type
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import RunConfig
from pangu_alpha.network.parameters import for_all_layers, parameter_table
from pangu_alpha.parallel.axes import grid, single, written
from pangu_alpha.parallel.layout import Layout, layouts
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks import dropout, overflow, traffic, traffic_check
from pangu_alpha.proof.checks.dependences import PartialOrder, partial_order
from pangu_alpha.proof.dry_run.job import Job, RankReport, Slice
from pangu_alpha.proof.dry_run.links import LINKS, Cluster, Link
from pangu_alpha.proof.graph import liveness, mindir
from pangu_alpha.proof.graph.fusion import fuse
from pangu_alpha.proof.graph.inline import inline

_STATE = {"adam_m.": "moments", "adam_v.": "moments", "accu_grads.": "sums"}
_MINDSPORE = 1.5e9  # bytes that importing MindSpore and compiling a graph may take
_NODE = 0.25e6  # bytes that compiling may take for each node; 0.16 to 0.23 MB were observed
_PLACE = re.compile(r"(?:^|/)(\w+)-\w+")  # attribute and class of a cell in a scope
_OUTER = ("network", "token_loss", "model")  # cells around the network


@dataclass(frozen=True)
class Placement:
    """Where a parameter lies, or the parameters of all layers that lie alike.

    Args:
        name: Name of the parameter; "blocks.*" stands for all layers.
        count: Number of such parameters.
        shape: Shape of the whole parameter.
        axes: For each dimension, the axes of the grid that cut it; None where it is whole.
        slice_shape: Shape of what a rank holds, before the optimizer's sharding.
        held: Shape of what it holds of the weight and of each moment.
        problem: How this differs from the sharding table; "" if it does not.
    """

    name: str
    count: int
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    slice_shape: tuple[int, ...]
    held: tuple[int, ...]
    problem: str


@dataclass(frozen=True)
class Strategy:
    """How an operator is split, or the operators of all layers that are split in the same way.

    Args:
        operator: Place in the network ("blocks.*" for all layers) and type.
        parts: For each input, the number of parts of each dimension.
        count: Number of such operators.
    """

    operator: str
    parts: tuple[tuple[int, ...], ...]
    count: int


@dataclass(frozen=True)
class RankSummary:
    """Everything that the dry run of a rank shows.

    Args:
        seconds: Seconds of the whole child; None if they were not measured.
        initialize_seconds: Seconds to make the initial values; None if none were made.
        peak_mb: Peak memory of the child, in MiB.
        nodes: Number of nodes of the graph.
        bytes: Bytes of "weights", "moments" and gradient "sums" that the rank holds.
        lines: The rank's traffic, by formula and in the graph.
        links: Farthest link that the groups of each line cross; None where there is no group.
        order: The rank's collectives, and the order that is forced on them.
        kept: Bytes that the graph keeps for the backward pass.
        stub_calls: How often MindSpore called each stub of CANN while compiling; empty with a real CANN.
        overflow: Faults in how the rank detects an overflow; see overflow.problems.
        dropout: The masks that the rank draws.
        dropout_faults: Faults in these masks, given the rank's place; see dropout.faults.
    """

    rank: int
    stage: int
    compile_seconds: float
    seconds: float | None
    initialize_seconds: float | None
    peak_mb: int
    nodes: int
    bytes: Mapping[str, int]
    placements: tuple[Placement, ...]
    strategies: tuple[Strategy, ...]
    lines: tuple[traffic_check.Line, ...]
    links: tuple[Link | None, ...]
    order: PartialOrder
    kept: liveness.KeptBytes
    stub_calls: Mapping[str, int] = field(default_factory=dict)
    overflow: tuple[str, ...] = ()
    dropout: tuple[dropout.Draw, ...] = ()
    dropout_faults: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the rank passes all checks.

        Formulas explain all traffic, all placements are those of the sharding table, an overflow is detected,
        the masks are those of the rank's place, and the host's memory is enough.
        """
        misplaced = any(each.problem for each in self.placements)
        explained = all(line.equal for line in self.lines)
        wrong = misplaced or self.overflow or self.dropout_faults
        return explained and not wrong and self.fits_host

    @property
    def held(self) -> int:
        """Bytes that the rank holds."""
        return sum(self.bytes.values())

    @property
    def slices_limit(self) -> float:
        """Bytes that a process should take at its peak: 1.5 times what the rank holds, plus MindSpore."""
        return 1.5 * self.held + _MINDSPORE

    @property
    def host_limit(self) -> float:
        """Bytes that a process may take at its peak.

        As `slices_limit`, except for a graph so large that compiling it takes more than 1.5 GB by itself;
        such a need does not depend on how much of the model the rank makes.
        """
        return max(self.slices_limit, 1.5 * self.held + _NODE * self.nodes)

    @property
    def fits_host(self) -> bool:
        """Whether the peak of the host's memory is within `host_limit`.

        It is not if a process makes more of the model than its own slices.
        """
        return self.peak_mb * 2**20 <= self.host_limit

    def wire(self) -> dict[tuple[str, Link], float]:
        """Bytes sent in a step, by axis and link."""
        found: defaultdict[tuple[str, Link], float] = defaultdict(float)
        for line, link in zip(self.lines, self.links, strict=True):
            if link and line.wire_bytes:
                found[line.axis, link] += line.wire_bytes
        return dict(found)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, without `order`."""
        rows = [
            {key: value for key, value in asdict(line).items() if key != "groups"}
            | {"group_size": len(line.groups[0]) if line.groups else 0, "link": link, "equal": line.equal}
            for line, link in zip(self.lines, self.links, strict=True)
        ]
        said = {"host_limit": self.host_limit, "slices_limit": self.slices_limit}
        said |= {"fits_host": self.fits_host, "agrees": self.agrees}
        plain = asdict(replace(self, order=PartialOrder((), ())))
        del plain["order"]
        return plain | {"lines": rows, "links": None} | said


def summarise(job: Job, report: RankReport, cluster: Cluster, seconds: float | None = None) -> RankSummary:
    """Reads and checks the graph of a compiled rank.

    Args:
        job: What was compiled, with the sharding table (no search).
        report: The report from `compile_rank`.
        cluster: The servers and racks in which the ranks lie.
        seconds: Seconds of the whole child.
    """
    mesh, model = Mesh.of(job.plan), mindir.read(report.graph)
    stage = mesh.stage_of(report.rank)
    counted, whole = mindir.summary(model), inline(model)
    saturates = FAMILIES[job.chip].saturates
    formulas = traffic.Formulas(job.model, job.plan, job.batch_size, compute_dtype(job), stage, saturates)
    lines = traffic_check.check(formulas.demands(), traffic_check.observed(model, mesh, report.rank))
    if job.plan.table is not None:
        lines = traffic_check.taken_as_compiled(lines, traffic.BY_TABLE)
    masks = dropout.draws(model, job.plan) if job.model.dropout else []
    seed = RunConfig.seed if job.seed is None else job.seed
    return RankSummary(
        rank=report.rank,
        stage=stage,
        compile_seconds=report.seconds,
        seconds=seconds,
        initialize_seconds=report.initialize_seconds,
        peak_mb=report.peak_mb,
        nodes=counted.nodes,
        bytes=held_bytes(counted.parameters),
        placements=tuple(_alike(placements(job, report, counted.parameters))),
        strategies=tuple(strategies(report.strategies)),
        lines=tuple(lines),
        links=tuple(_link(line, cluster) for line in lines),
        order=partial_order(fuse(model, report.rank) if job.plan.gradient_fusion else model),
        kept=liveness.kept(model, job.plan.micro_batches, whole).bytes(),
        stub_calls=report.stub_calls,
        overflow=overflow.problems(whole, saturates),
        dropout=tuple(masks),
        dropout_faults=tuple(dropout.faults(masks, job.model, job.plan, report.rank, seed)),
    )


def compute_dtype(job: Job) -> str:
    """The type of the activations."""
    return compute_type(job.model, job.chip)


def held_bytes(parameters: Mapping[str, mindir.Tensor]) -> dict[str, int]:
    """Bytes of "weights", "moments" and gradient "sums" among parameters."""
    sizes = {"weights": 0, "moments": 0, "sums": 0}
    for name, tensor in parameters.items():
        kind = next((kind for prefix, kind in _STATE.items() if name.startswith(prefix)), "weights")
        sizes[kind] += tensor.bytes
    return sizes


def placements(job: Job, report: RankReport, parameters: Mapping[str, mindir.Tensor]) -> Iterator[Placement]:
    """Yields where MindSpore put every parameter of a rank, and how that differs from the sharding table."""
    mesh = Mesh.of(job.plan)
    stage, table = mesh.stage_of(report.rank), parameter_table(job.model)
    for name, expected in layouts(job.model, job.plan).items():
        if stage != expected.stage and not (table[name].tied and stage == mesh.pp - 1):
            continue
        if name not in report.layouts or name not in parameters:
            problem = "the rank's graph does not have it"
            yield Placement(name, 1, expected.shape, expected.axes, expected.slice_shape, (), problem)
            continue
        found, held = report.layouts[name], parameters[name].shape
        axes = tuple(_axis(found, dimension, job.plan) for dimension in range(len(found.shape)))
        problem = _difference(expected, found, axes, held, job.plan)
        yield Placement(name, 1, found.shape, axes, found.slice_shape, held, problem)


def _axis(found: Slice, dimension: int, plan: ParallelPlan) -> str | None:
    """Axes of the grid that cut a dimension, found by their stride in MindSpore's device matrix."""
    place, parts = found.tensor_map[dimension], found.shape[dimension] // found.slice_shape[dimension]
    if place < 0 or parts == 1:
        return None
    stride = math.prod(found.device_matrix[len(found.device_matrix) - place :])
    names = [name for name, size in grid(plan).items() if size > 1]
    for first, last in itertools.combinations(range(len(names) + 1), 2):
        sizes = [grid(plan)[name] for name in names]
        if (math.prod(sizes[last:]), math.prod(sizes[first:last])) == (stride, parts):
            return written(names[first:last], plan)
    return f"{parts} parts of stride {stride}"


def _difference(
    expected: Layout, found: Slice, axes: Sequence[str | None], held: Sequence[int], plan: ParallelPlan
) -> str:
    table = tuple(written(single(axis, plan), plan) for axis in expected.axes)
    whole = tuple(size // parts for size, parts in zip(expected.shape, expected.parts, strict=True))
    problems = [
        f"{what} {found_value}, by the table {value}"
        for what, found_value, value in (
            ("shape", found.shape, expected.shape),
            ("cut over", tuple(axes), table),
            ("slice", found.slice_shape, whole),
            ("held", tuple(held), expected.slice_shape),
        )
        if found_value != value
    ]
    return "; ".join(problems)


def _alike(found: Iterator[Placement]) -> Iterator[Placement]:
    """Merges the placements of layers that lie alike into one."""
    groups: Counter[Placement] = Counter()
    for each in found:
        groups[Placement(for_all_layers(each.name), *list(vars(each).values())[1:])] += 1
    for each, count in groups.items():
        yield Placement(each.name, count, *list(vars(each).values())[2:])


def strategies(found: Mapping[str, Sequence[Sequence[int]]]) -> Iterator[Strategy]:
    """Yields the strategies of the operators, merged by place in the network."""
    groups: Counter[tuple[str, tuple[tuple[int, ...], ...]]] = Counter()
    for scope, parts in found.items():
        groups[operator_name(scope), tuple(map(tuple, parts))] += 1
    for (operator, parts), count in groups.items():
        yield Strategy(operator, parts, count)


def operator_name(scope: str) -> str:
    """An operator's place in the network and its type.

    Args:
        scope: For example "Default/network-Loss/model-Pangu/blocks-CellList/3-Block/add-Add/Add-op0".
    """
    cells = [name for name in _PLACE.findall(scope.rpartition("/")[0]) if name not in _OUTER]
    names = ["*" if name.isdigit() else name for name in cells]
    return ".".join([*names, scope.rpartition("/")[2].partition("-")[0]])


def _link(line: traffic_check.Line, cluster: Cluster) -> Link | None:
    links = [cluster.link(ranks) for ranks in line.groups]
    return max(links, key=LINKS.index) if links else None
