"""THE table of checks, in the order in which they run. A check that is not finished is not in it.

Bounds are given for each kind of device with their reason. Times are those of a usual run of one measurement.
"""

from __future__ import annotations

from dataclasses import asdict

from pangu_alpha.cluster_check.cases.overflow import measurements as overflow_measurements
from pangu_alpha.cluster_check.cases.plans import measurements as plan_measurements
from pangu_alpha.cluster_check.cases.reshard import measurements as reshard_measurements
from pangu_alpha.cluster_check.check import Check, Measurement
from pangu_alpha.cluster_check.judge import (
    dropout,
    environment,
    links,
    operators,
    overlap,
    planner,
    plans,
    speed,
    startup,
    world,
)
from pangu_alpha.cluster_check.judge.models import decoding, network, released
from pangu_alpha.cluster_check.judge.runs import overflow, parallel, partitioned, reshard, training
from pangu_alpha.proof.replay.compare import Bounds

# Rounding: a float16 (bfloat16) number is off by up to 2^-11 (2^-8) of itself. An output may have three such
# errors in a row; a gradient, which is a product of several rounded factors, twenty. Another form of GELU is
# 2.2e-3 of the largest output away. Float32 results differ by the order of their sums.
_OPERATORS = {
    "float32 output": 1e-5,
    "float32 gradient": 1e-4,
    "float16 output": 1.5e-3,
    "float16 gradient": 1e-2,
    "bfloat16 output": 1.2e-2,
    "bfloat16 gradient": 8e-2,
    "numpy output": 1e-5,
    "numpy slope": 1e-3,
}
# The official arrays are float32 results themselves. Half precision rounds each number to 2^-11 (float16) or
# 2^-8 (bfloat16) of itself; eight such roundings in a row make the bounds of logits and losses. AdamW divides
# a gradient by its own size, so that weights whose gradients are near zero move by what is mostly rounding.
_NETWORK = {
    "float32 logits": 1e-5,
    "float32 losses": 1e-5,
    "float32 gradients": 1e-3,
    "float32 step losses": 1e-5,
    "float32 weights": 5e-3,
    "float16 logits": 4e-3,
    "float16 losses": 4e-3,
    "float16 gradients": 2e-2,
    "float16 step losses": 4e-3,
    "float16 weights": 0.1,
    "bfloat16 logits": 3e-2,
    "bfloat16 losses": 3e-2,
    "bfloat16 gradients": 0.15,
    "bfloat16 step losses": 3e-2,
    "bfloat16 weights": 0.3,
}
_DECODING = {"float32 logits": 1e-4, "float16 logits": 2e-2, "bfloat16 logits": 1e-1}
# -log p of a token is a difference of logits, which are some 20 for a trained network; 30 to 60 layers round
# each. The mean over a text has far less of it.
_RELEASED = {
    "float32 perplexity": 1e-4,
    "float32 nats": 5e-3,
    "float16 perplexity": 1e-2,
    "float16 nats": 0.25,
    "bfloat16 perplexity": 3e-2,
    "bfloat16 nats": 1.0,
}
# Of a loss curve: rounding is amplified by the steps. A run learns if its last loss is well below its first.
_LEARNT = 0.85


def _plans(float32: float, float16: float) -> dict[str, float]:
    """Bounds of a replay (see proof.replay.compare) by type and kind, as so many times those of CPU."""
    return {
        f"{dtype} {kind}": value * times
        for dtype, times in {"float32": float32, "float16": float16}.items()
        for kind, value in asdict(Bounds.of(dtype)).items()
    }


CHECKS: tuple[Check, ...] = (
    Check(
        "environment",
        "Environment",
        "all machines have the same and the right software, their devices, and one storage that works",
        (Measurement("machine", "each", ""),),
        environment.judge,
        # Clocks: checkpoints of several hosts are ordered by names, logs by time. Storage: a checkpoint of
        # 2.6B takes 31 GB and must not take an hour. Compiling 64 layers takes up to 3 GB a rank, and several
        # times as many addresses. The smallest devices have 32 GB; an idle one uses about 3 GB of 64, so that
        # more is another job's.
        {
            "CPU": {
                "open_files": 1024,
                "processes": 256,
                "address_space": 16e9,
                "host_gigabytes": 1,
                "clock_seconds": 1,
                "write_megabytes": 5,
                "free_gigabytes": 1,
            },
            "Ascend": {
                "open_files": 4096,
                "processes": 4096,
                "address_space": 256e9,
                "device_gigabytes": 30,
                "used_share": 0.15,
                "host_gigabytes": 16,
                "clock_seconds": 1,
                "write_megabytes": 100,
                "free_gigabytes": 100,
            },
        },
        {"CPU": 4, "Ascend": 20},
    ),
    Check(
        "world",
        "Environment",
        "all ranks come together, each on the device that it was started on, and sum without a wrong bit",
        (Measurement("joined", "all"),),
        world.judge,
        {"CPU": {"wrong_words": 0}, "Ascend": {"wrong_words": 0}},
        {"CPU": 10, "Ascend": 60},
        least=2,
    ),
    Check(
        "operators",
        "Operators",
        "every operator that training uses computes what its definition says, forward and backward",
        (Measurement("plain", device="CPU"), Measurement("device")),
        operators.judge,
        {"CPU": _OPERATORS, "Ascend": _OPERATORS},
        {"CPU": 40, "Ascend": 120},
    ),
    Check(
        "dropout",
        "Operators",
        "dropout drops its share, independently for cells, steps and rows, by the same masks as on CPU",
        # MindSpore 2.9 says that the seeds of the device's own stream have no effect: only ranks show it.
        (Measurement("plain", device="CPU"), Measurement("device"), Measurement("stream", "each")),
        dropout.judge,
        # 66 pairs are compared: a normal deviation beyond 5 has a chance of 4e-5 among them. The masks do
        # not depend on chance, so a pass stays a pass.
        {"CPU": {"deviations": 5}, "Ascend": {"deviations": 5}},
        {"CPU": 10, "Ascend": 60},
    ),
    Check(
        "network",
        "Network",
        "the network computes the official code's logits, losses, gradients and six steps",
        (Measurement("device"),),
        network.judge,
        {"CPU": _NETWORK, "Ascend": _NETWORK},
        {"CPU": 30, "Ascend": 120},
        needs=("oracle",),
        folder="models",
    ),
    Check(
        "decoding",
        "Network",
        "generating token by token gives the logits of one pass over the whole text",
        (Measurement("device"),),
        decoding.judge,
        {"CPU": _DECODING, "Ascend": _DECODING},
        {"CPU": 30, "Ascend": 120},
        folder="models",
    ),
    Check(
        "released",
        "Network",
        "a released network predicts a text, and answers to known prompts, as on CPU",
        (Measurement("cpu", device="CPU"), Measurement("device")),
        released.judge,
        {"CPU": _RELEASED, "Ascend": _RELEASED},
        {"CPU": 60, "Ascend": 300},
        needs=("released", "text"),
        folder="models",
    ),
    Check(
        "training",
        "Training",
        "one device trains as the CPU does with the same seed, and a killed run resumes as if it was not",
        (
            # By MindSpore's own operators, so that on CPU too two different computations are compared.
            Measurement("cpu", device="CPU", environment={"PANGU_KERNELS": "off"}),
            Measurement("device"),
            Measurement("killed"),
        ),
        training.judge,
        # On CPU the resumed run must be equal bit for bit. Kernels of a device may add in another order each
        # time they run, which is rounding again.
        {
            "CPU": {"float32 loss": 1e-4, "learnt": _LEARNT, "resumed": 0.0},
            "Ascend": {"float32 loss": 1e-2, "float16 loss": 3e-2, "learnt": _LEARNT, "resumed": 1e-2},
        },
        {"CPU": 30, "Ascend": 120},
        folder="runs",
    ),
    Check(
        "parallel",
        "Training",
        "all ranks together, data parallel, train what one rank trains, with equal weights on all",
        (Measurement("one"), Measurement("together", "all")),
        parallel.judge,
        {"CPU": {"float32 loss": 1e-4}, "Ascend": {"float32 loss": 1e-2, "float16 loss": 3e-2}},
        {"CPU": 40, "Ascend": 180},
        least=2,
        folder="runs",
    ),
    Check(
        "partitioned",
        "Training",
        "every plan of tensor, pipeline and optimizer parallelism computes what one device computes",
        plan_measurements(),
        partitioned.judge,
        # Both sides are of one type, so only the order of sums differs. Kernels of a device choose it by the
        # shape of a slice, and may add up in fewer bits than a CPU.
        {"CPU": _plans(1.0, 1.0), "Ascend": _plans(10.0, 3.0)},
        {"CPU": 40, "Ascend": 60},
        least=2,
        folder="runs",
    ),
    Check(
        "overflow",
        "Training",
        "an overflow on one rank skips the step on all, and the loss scale follows its schedule",
        overflow_measurements(),
        overflow.judge,
        # Steps are skipped or not, and scales are powers of two.
        {"CPU": {}, "Ascend": {}},
        {"CPU": 20, "Ascend": 60},
        folder="runs",
    ),
    Check(
        "reshard",
        "Training",
        "a run saved on all ranks goes on from its resharded checkpoint as if nothing had happened",
        reshard_measurements(),
        reshard.judge,
        # Sums in another order, amplified by six steps; weights as in the check of the network.
        {
            "CPU": {"float32 loss": 1e-5, "float32 weights": 5e-3},
            "Ascend": {
                "float32 loss": 1e-4,
                "float32 weights": 5e-3,
                "float16 loss": 4e-3,
                "float16 weights": 0.1,
            },
        },
        {"CPU": 60, "Ascend": 60},
        least=2,
        folder="runs",
    ),
    Check(
        "speed",
        "Speed",
        "what one device's matrix products and memory really give",
        (Measurement("device"),),
        speed.judge,
        # Floors far below any device that works as it should: a 910A has multiplied at 110e12, and its
        # memory is rated at 1.2e12 bytes/s.
        {
            "CPU": {"gigaflops": 1, "gigabytes": 0.5, "call_seconds": 0.05},
            "Ascend": {"gigaflops": 50_000, "gigabytes": 200, "call_seconds": 0.005},
        },
        {"CPU": 10, "Ascend": 60},
    ),
    Check(
        "links",
        "Speed",
        "what collectives really give on each level of links, and no group is slower than its like",
        (Measurement("joined", "all"),),
        links.judge,
        # CPU ranks share cores and memory with everything else. On Ascend a 100 Gb/s port gives 12.5 GB/s,
        # of which an AllReduce over many ranks moves half as many bytes of its tensor a second.
        {
            "CPU": {"latency_seconds": 0.2, "gigabytes": 0.002, "uneven": 5},
            "Ascend": {"latency_seconds": 0.01, "gigabytes": 1, "uneven": 1.5},
        },
        {"CPU": 20, "Ascend": 120},
        least=2,
    ),
    Check(
        "overlap",
        "Speed",
        "how much communication a device hides behind products",
        (Measurement("joined", "all"),),
        overlap.judge,
        # Working at the same time must not take longer than one after the other. A device that overlaps
        # nothing is at 1. On CPU the products and the sums share cores and memory.
        {"CPU": {"together": 1.6}, "Ascend": {"together": 1.1}},
        {"CPU": 15, "Ascend": 60},
        least=2,
    ),
    Check(
        "startup",
        "Speed",
        "how long a training takes to its first step, and what a second start saves",
        (Measurement("cold"), Measurement("warm")),
        startup.judge,
        # Above these something is wrong, such as a cache of kernels that cannot be written or storage that
        # Python imports from over a slow network.
        {"CPU": {"started": 60, "first_step": 120}, "Ascend": {"started": 180, "first_step": 600}},
        {"CPU": 20, "Ascend": 120},
    ),
    Check(
        "planner",
        "Planner",
        "the measured numbers as files for the planner, and the plans that it finds with them",
        (Measurement("search", device=""),),
        planner.judge,
        {"CPU": {}, "Ascend": {}},
        {"CPU": 10, "Ascend": 60},
        least=2,
    ),
    Check(
        "plans",
        "Planner",
        "steps of several plans, measured and predicted: whether the planner puts them in their order",
        (
            *(Measurement(f"plan_{number + 1}", "all", independent=True) for number in range(5)),
            Measurement("predicted", device=""),
        ),
        plans.judge,
        # Ranks on CPU share the cores and the memory that the speed of one rank was measured with, and other
        # programs take theirs: a factor of 1.9 was seen there. Those of NPUs are assumed.
        {
            "CPU": {"order": 0.7, "factor": 5, "fitted_factor": 2},
            "Ascend": {"order": 0.7, "factor": 1.6, "fitted_factor": 1.3},
        },
        {"CPU": 25, "Ascend": 90},
        least=2,
    ),
)

PARTS = tuple(dict.fromkeys(check.part for check in CHECKS))


def named(names: tuple[str, ...]) -> tuple[Check, ...]:
    """The checks of these names, in the table's order.

    Raises:
        ValueError: There is no check of a name.
    """
    known = [check.name for check in CHECKS]
    for name in names:
        if name not in known:
            raise ValueError(f"--only: {name!r} is no check; there are {', '.join(known)}")
    return tuple(check for check in CHECKS if check.name in names)
