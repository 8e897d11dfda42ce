"""The planner's own files: they give the measured times back, and slow links change the plan."""

from __future__ import annotations

import pytest
from records_of import links, speed

from pangu_alpha.__main__ import main
from pangu_alpha.cluster_check.calibration import Measured, planner_files
from pangu_alpha.cluster_check.setup import Level, Setup, levels
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.files.writing import write_text
from pangu_alpha.files.yaml_text import yaml_text
from pangu_alpha.planner.cost.collectives import Links
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.search.search import Question, search

SIZES = (1 << 10, 1 << 20, 1 << 24, 1 << 28)


def setup(nodes=1, ranks=8, **more):
    places = tuple(tuple(range(node * ranks, (node + 1) * ranks)) for node in range(nodes))
    return Setup("Ascend", places, places, **more)


def measured(levels_seconds, size):
    """Records of the check "links" of so many ranks: by level, seconds by bytes."""
    records = [{"levels": {}, "groups": {}} for _ in range(size)]
    for name, seconds in levels_seconds.items():
        for record, other in zip(records, links(name, [seconds] * size), strict=True):
            record["levels"] |= other["levels"]
    return records


def written(folder, files):
    for name, values in files.items():
        write_text(folder / name, yaml_text(values))
    return str(folder / "clusters.yaml")


def loaded(folder, files):
    return load_cluster(written(folder, files))


def ring(ranks, bandwidth, latency):
    """Seconds of an AllReduce by bytes, as a ring takes them."""
    return {n: 2 * (ranks - 1) * (n / ranks / bandwidth + latency) for n in SIZES}


def test_a_set_up_s_levels():
    assert levels(setup()) == [Level("pair", 2), Level("server", 8)]
    assert levels(setup(ranks=2)) == [Level("server", 2)]
    assert levels(setup(ranks=1)) == []
    many = setup(4, cluster="910a", servers_per_rack=2)
    assert [(each.name, each.size) for each in levels(many)] == [
        ("pair", 2), ("group", 4), ("server", 8), ("rack", 16), ("cluster", 32)]  # fmt: skip
    assert Level("group", 4).groups(8) == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_the_planner_predicts_what_was_measured(tmp_path):
    seconds = {"pair": ring(2, 20e9, 4e-6), "server": ring(8, 5e9, 9e-6)}
    cluster = loaded(tmp_path, planner_files(setup(), Measured(speed(), measured(seconds, 8), 64e9)))
    predicted = Links(cluster)
    for level in cluster.levels:
        for size in SIZES:
            found = predicted.reduce(size, predicted.fan(level.size, 1))
            assert found == pytest.approx(seconds[level.name][size], rel=0.1), (level.name, size)
    assert cluster.levels[0].bandwidth == pytest.approx(20e9, rel=1e-3)
    assert cluster.levels[0].latency == pytest.approx(4e-6, rel=1e-2)
    assert cluster.count == 8 and cluster.server == 8


def test_the_device_is_the_measured_one(tmp_path):
    seconds = {"pair": ring(2, 20e9, 4e-6), "server": ring(8, 5e9, 9e-6)}
    device = loaded(tmp_path, planner_files(setup(), Measured(speed(), measured(seconds, 8), 64e9))).device
    assert device.memory == 64e9 and device.peak == pytest.approx(100e9) and device.constants.matmul == 1.0
    assert device.bandwidth * device.constants.memory == pytest.approx(10e9)
    fast = speed(products={"4096": 2.0 * 4096**3 / 188e12})
    values = planner_files(setup(cluster="910b"), Measured(fast, measured(seconds, 8), 64e9))
    device = loaded(tmp_path, values).device
    assert device.family == "910B" and device.peak == 376e12
    assert device.constants.matmul == pytest.approx(0.5)
    assert device.sources["bandwidth"] == "measured by check-cluster"
    assert device.name == "measured-910B2" and device.constants.overlap == 0.0322  # as shipped
    values = planner_files(setup(cluster="910b"), Measured(fast, measured(seconds, 8), 64e9, hidden=0.8))
    assert loaded(tmp_path, values).device.constants.overlap == 0.8


def test_slow_links_change_the_plan(tmp_path):
    """Tensor parallelism needs fast links in the server; over slow ones another plan is better."""
    model, stack = load_model_config("13b"), load_stack("pangu-alpha")
    fast = speed(products={"4096": 2.0 * 4096**3 / 250e12}, copies={str(1 << 30): 3 * 2**30 / 1e12})

    def best(bandwidth):
        seconds = {"pair": ring(2, bandwidth, 5e-6), "server": ring(8, bandwidth, 5e-6)}
        values = planner_files(setup(cluster="910b"), Measured(fast, measured(seconds, 8), 64e9))
        return search(Question(model, loaded(tmp_path, values), stack, 64), 1).best[0]

    quick, slow = best(150e9), best(0.5e9)
    assert quick.plan.tp > slow.plan.tp
    assert slow.seconds > 1.5 * quick.seconds


def test_plan_search_takes_the_files(tmp_path, capsys):
    seconds = {"pair": ring(2, 100e9, 5e-6), "server": ring(8, 90e9, 5e-6)}
    path = written(
        tmp_path, planner_files(setup(cluster="910b"), Measured(speed(), measured(seconds, 8), 64e9))
    )
    code = main(["plan", "search", "--model", "2_6b", "--cluster", path, "--global-batch", "64"])
    assert not code and "dp" in capsys.readouterr().out
