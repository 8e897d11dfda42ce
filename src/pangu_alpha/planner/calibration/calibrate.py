"""Fits a device's constants to measured steps, and measures how far predictions are off.

The split into fitted and held-out groups depends only on the groups' names, never on their order or on the
rest of the table.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pangu_alpha.planner.calibration.published import Row
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import BOUNDS, Constants, other_constants

FITTED = tuple(BOUNDS)
_SALT = 61  # the smallest that halves every published set we know; chosen without looking at predictions
_FIRST_STEP, _LAST_STEP = 0.5, 0.01  # step sizes of the search, in logarithms of the constants
_PULL = 0.0005  # loss added for a constant that is a factor e away from its start
_NOISE, _PRIOR = 0.02, 0.3  # standard deviations of logarithms: of a measured time, of a constant
_NEWTON_STEPS = 6  # more than convergence takes
_SHARES = (0.2, 0.5, 1.0)  # expected shares of the constants that a step of the search changes
# What was measured directly is not fitted. A 910B2 multiplies matrices of 4,096 rows and columns at 314.5e12
# FLOP/s; runs alone do not tell how much of their time is products, and fits without this figure end anywhere
# between 0.77 and the peak. Sums over eight A100 reach about 235 of 300 GB/s, and copies 88 % of the memory's
# bandwidth (recalled figures); fits without them end at the bounds 1.0 and 0.95.
_MEASURED = {"910B2": {"matmul": 0.887}, "A100-80": {"link_inner": 0.78, "memory": 0.88}}
# Rows determine a constant if log(time) changes at least so much with log(constant) (root mean square).
_TOLD = 0.02


def counted(rows: Iterable[Row]) -> list[Row]:
    """Rows that may be used to judge a model: all but those of quality C."""
    return [row for row in rows if row.quality.upper() != "C"]


def group_name(row: Row) -> str:
    """Name of a row's group: the name of its set, and what the group's rows have in common."""
    return f"{row.set}: {row.group}"


def fitted_half(rows: Iterable[Row], salt: int = _SALT) -> list[Row]:
    """Rows of the groups used for fitting: about half, chosen by a hash of the salt and their names."""
    return [row for row in rows if hashlib.sha256(f"{salt} {group_name(row)}".encode()).digest()[0] % 2 == 0]


def predict(row: Row, constants: Constants | None = None) -> float:
    """Seconds that the model predicts for a row, with the device's own constants unless others are given."""
    cluster = row.cluster
    if constants is not None:
        device = dataclasses.replace(cluster.device, constants=constants)
        cluster = dataclasses.replace(cluster, device=device)
    return CostModel(cluster, row.stack).estimate(row.job).step / row.repeats


def shipped(rows: Sequence[Row]) -> list[float]:
    """Predicted seconds with the shipped constants."""
    return [predict(row) for row in rows]


def of_other_planners(rows: Sequence[Row]) -> list[float]:
    """Seconds predicted by our model with the constants of other public planners."""
    return [predict(row, other_constants(row.cluster.device.name)) for row in rows]


def constant_efficiency(rows: Sequence[Row]) -> list[float]:
    """Seconds if all rows reached the same share of the peak; a baseline for the cost model.

    The share is chosen for the least mean error on these very rows. The work is the model's FLOPs, plus
    another forward pass for fully recomputed layers.
    """
    ideal = [_ideal(row) for row in rows]
    best = min(
        (row.seconds / seconds for row, seconds in zip(rows, ideal, strict=True)),
        key=lambda scale: sum(abs(scale * i / row.seconds - 1) for i, row in zip(ideal, rows, strict=True)),
        default=1.0,
    )
    return [best * seconds for seconds in ideal]


def _ideal(row: Row) -> float:
    job = row.job
    tokens = job.batch * job.shape.seq
    full = sum(counts["full"] for counts in job.recomputed())
    flops = job.shape.flops(tokens) + full * job.shape.layer_flops(tokens)
    return flops / (job.devices * row.cluster.device.peak) / row.repeats


def errors(rows: Sequence[Row], seconds: Sequence[float]) -> dict[str, float | int | None]:
    """Measures how far predictions are off.

    Args:
        seconds: Predictions, in the same order.

    Returns:
        "rows", their number; "mape" and "median", mean and median of the absolute errors; "bias", mean of the
            signed errors; "spearman", the mean rank correlation within groups of at least three rows;
            "regret", the mean over groups of how much slower than the fastest row the row is that is
            predicted to be the fastest. All but "rows" and "spearman" are in %; None where there is no such
            group.
    """
    signed = [s / row.seconds - 1 for row, s in zip(rows, seconds, strict=True)]
    groups = defaultdict(list)
    for row, s in zip(rows, seconds, strict=True):
        groups[row.set, row.group].append((s, row.seconds))
    several = [group for group in groups.values() if len(group) >= 2]
    ranks = [spearman(*zip(*group, strict=True)) for group in several if len(group) >= 3]
    regrets = [_regret(group) for group in several]
    return {
        "rows": len(rows),
        "mape": _percent(map(abs, signed)),
        "median": _percent(map(abs, signed), statistics.median),
        "bias": _percent(signed),
        "spearman": round(statistics.fmean(ranks), 4) if ranks else None,
        "regret": _percent(regrets),
    }


def _regret(group: Sequence[tuple[float, float]]) -> float:
    """How much slower than the fastest the predicted fastest is, as a share; the mean over ties.

    `group` holds pairs of (predicted, measured).
    """
    least = min(predicted for predicted, _ in group)
    taken = [measured for predicted, measured in group if predicted == least]
    return statistics.fmean(taken) / min(measured for _, measured in group) - 1


def _percent(values: Iterable[float], mean: Callable = statistics.fmean) -> float | None:
    values = list(values)
    return round(100 * mean(values), 2) if values else None


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation. Equal values share their mean rank; with a constant sequence the result is 0."""
    a, b = _ranks(first), _ranks(second)
    if min(len(set(a)), len(set(b))) < 2:
        return 0.0
    return statistics.correlation(a, b)


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    first: dict[float, int] = {}
    for index, value in enumerate(ordered):
        first.setdefault(value, index)
    return [first[value] + (ordered.count(value) - 1) / 2 for value in values]


def loss(rows: Sequence[Row], constants: Constants) -> float:
    """The quantity that a fit minimises: the mean over sets of error plus half the regret.

    The error of a set is the mean |log(predicted / measured)|. Its regret (see `errors`) is included because
    a plan is chosen by which one is faster, not by how fast it is.
    """
    sets = defaultdict(list)
    for row in rows:
        sets[row.set].append((row.group, predict(row, constants), row.seconds))
    return statistics.fmean(map(_set_loss, sets.values()))


def _set_loss(found: Sequence[tuple[tuple, float, float]]) -> float:
    groups = defaultdict(list)
    for group, predicted, measured in found:
        groups[group].append((predicted, measured))
    error = statistics.fmean(abs(math.log(predicted / measured)) for _, predicted, measured in found)
    several = [group for group in groups.values() if len(group) >= 2]
    return error + 0.5 * statistics.fmean(map(_regret, several)) if several else error


def fit(
    rows: Sequence[Row],
    start: Constants,
    names: Sequence[str] = FITTED,
    trials: int = 600,
    seed: int = 0,
) -> Constants:
    """Fits constants by a (1+1) evolution strategy: a random search with adaptive steps.

    Steps grow after success and shrink after failure. A step changes some of the constants or all. A weak
    pull towards the start keeps constants there that the rows do not determine.

    Args:
        rows: Measured steps on one device type.
        start: Constants to start from; those not in `names`, and those that are 0, do not change.

    Raises:
        ValueError: If there are no rows, or rows of several device types.
    """
    devices = sorted({row.cluster.device.name for row in rows})
    if len(devices) != 1:
        raise ValueError(f"rows of {', '.join(devices) or 'no device'}: give rows of exactly one device type")
    random = np.random.default_rng(seed)
    moves, size = np.zeros(len(names)), _FIRST_STEP
    best, least = start, loss(rows, start)
    for _ in range(trials):
        chosen = random.random(len(names)) < random.choice(_SHARES)
        trial_moves = moves + size * chosen * random.standard_normal(len(names))
        trial = _moved(start, names, trial_moves)
        found = loss(rows, trial) + _PULL * float(trial_moves @ trial_moves)
        if found < least:
            best, least, moves, size = trial, found, trial_moves, size * 1.5
        else:
            size = size * 0.9 if size > _LAST_STEP else _FIRST_STEP
    return best


def size_class(row: Row) -> int:
    """Class of a row's model size: classes are factors of two wide, so that no near twin stays in another."""
    return row.job.shape.parameters.bit_length() - 1


def size_left_out(rows: Sequence[Row], trials: int) -> list[float]:
    """Seconds predicted for each row with constants that are fitted to the rows of all other sizes.

    The shipped constants stand in for a device type of which there is no row of another size.

    Args:
        trials: Number of trials of each fit; there is one for each size of each device type.
    """
    found: dict[int, float] = {}
    for mine in _by_device(rows).values():
        for size in sorted(set(map(size_class, mine))):
            others = [row for row in mine if size_class(row) != size]
            constants = next(iter(fit_devices(others, trials).values()), None)
            found |= {id(row): predict(row, constants) for row in mine if size_class(row) == size}
    return [found[id(row)] for row in rows]


def _by_device(rows: Iterable[Row]) -> dict[str, list[Row]]:
    devices = defaultdict(list)
    for row in rows:
        devices[row.cluster.device.name].append(row)
    return dict(sorted(devices.items()))


def fit_devices(rows: Sequence[Row], trials: int = 1500, starts: int = 1) -> dict[str, Constants]:
    """Fits the constants of each device type among the rows, starting from the defaults of Constants.

    A device with fewer rows than constants gets only those constants fitted that its rows determine; what was
    measured directly (_MEASURED) is not fitted.

    Args:
        starts: Number of searches with other random numbers, of which the one with the least loss counts.
    """
    fitted = {}
    for device, mine in _by_device(rows).items():
        measured = _MEASURED.get(device, {})
        start = dataclasses.replace(Constants(), **measured)
        names = FITTED if len(mine) >= len(FITTED) else told(mine, start)
        free = [name for name in names if name not in measured]
        found = [fit(mine, start, free, trials, seed) for seed in range(starts)]
        fitted[device] = min(found, key=lambda constants: loss(mine, constants))
    return fitted


def told(rows: Sequence[Row], constants: Constants) -> tuple[str, ...]:
    """Names of the constants that the rows determine: `matmul` first, then ordered by their effect.

    Constants that change the times of all rows in the same proportions cannot be distinguished: another one
    is added only if its effects are no linear combination of those chosen before.
    """
    effects = {name: _effect(rows, constants, name) for name in FITTED}
    found: list[str] = []
    while effects:
        sizes = {name: float(np.sqrt((effect**2).mean())) for name, effect in effects.items()}
        name = max(sizes, key=lambda name: (not found and name == "matmul", sizes[name]))
        if sizes[name] < _TOLD:
            break
        found.append(name)
        unit = effects[name] / np.linalg.norm(effects.pop(name))
        effects = {other: effect - (effect @ unit) * unit for other, effect in effects.items()}
    return tuple(found)


def _effect(rows: Sequence[Row], constants: Constants, name: str) -> np.ndarray:
    """Derivative of each row's log(time) by the logarithm of a constant, from a difference of a tenth."""
    values = [_moved(constants, [name], np.array([move])) for move in (-0.05, 0.05)]
    low, high = (getattr(value, name) for value in values)
    if low == high:
        return np.zeros(len(rows))
    times = np.log([[predict(row, value) for row in rows] for value in values])
    return (times[1] - times[0]) / math.log(high / low)


def refit(rows: Sequence[Row], start: Constants) -> Constants:
    """Fits the constants that the rows determine by regularised least squares, with Gauss-Newton steps.

    For few and clean rows, such as those of the user's own runs; `fit` is for many rows, some of them odd.

    Args:
        rows: Measured steps on one device type.
        start: Constants to which the fit is drawn: _PRIOR is the standard deviation of a constant's
            logarithm, _NOISE that of a measured time's.
    """
    names, found = told(rows, start), start
    ridge = (_NOISE / _PRIOR) ** 2 * np.eye(len(names))
    moves = np.zeros(len(names))
    for _ in range(_NEWTON_STEPS if names else 0):
        off = np.array([math.log(row.seconds / predict(row, found)) for row in rows])
        effects = np.stack([_effect(rows, found, name) for name in names], axis=1)
        gradient = effects.T @ off - ridge @ moves
        moves = moves + np.linalg.solve(effects.T @ effects + ridge, gradient)
        found = _moved(start, names, moves)
        moves = np.array([math.log(getattr(found, name) / getattr(start, name)) for name in names])
    return found


def left_out(rows: Sequence[Row], start: Constants) -> list[float]:
    """Seconds predicted for each row with constants that are fitted to all other rows."""
    others = ([*rows[:index], *rows[index + 1 :]] for index in range(len(rows)))
    return [predict(row, refit(rest, start)) for row, rest in zip(rows, others, strict=True)]


def _moved(start: Constants, names: Sequence[str], moves: np.ndarray) -> Constants:
    """Returns the constants, each multiplied by exp(move) and clipped to its bounds."""
    changes = {}
    for name, move in zip(names, moves, strict=True):
        low, high = BOUNDS[name]
        changes[name] = float(min(max(getattr(start, name) * math.exp(move), low), high))
    return dataclasses.replace(start, **changes)
