"""Shipped devices and clusters, files of one's own, and collectives on their links."""

from __future__ import annotations

import math

import pytest
import yaml

from pangu_alpha.config.schema import ConfigError
from pangu_alpha.planner.cost.collectives import Links
from pangu_alpha.planner.cost.hardware import (
    BOUNDS,
    Cluster,
    Constants,
    Device,
    Level,
    device_names,
    load_cluster,
    load_device,
    load_stack,
    other_constants,
)

ONES = Constants(link_inner=1.0, link_outer=1.0, latency=1.0)
TOY = Cluster(
    "toy",
    Device("toy", 1e14, 1e10, 1.0, 1e12, ONES),
    (Level("server", 4, 100.0, 0.0, inner=True), Level("fabric", 0, 10.0, 0.0, oversubscription=2.0)),
    16,
)


def test_every_shipped_device_names_its_sources():
    ours = {"910A", "910B1", "910B2", "910B3", "910B4", "910C", "A100-40", "A100-80", "H100"}
    assert ours == set(device_names())
    for name in device_names():
        device = load_device(name)
        assert device.peak > 1e14 and device.memory > 3e10
        assert set(device.sources) >= {"peak", "memory", "usable", "bandwidth", "constants"}
        assert "none given" not in device.sources.values()
        assert all(low <= getattr(device.constants, key) <= high for key, (low, high) in BOUNDS.items())
        assert other_constants(name) != device.constants


def test_built_in_clusters():
    cluster = load_cluster("910a-2048")
    assert (cluster.count, cluster.server, cluster.device.name) == (2048, 8, "910A")
    assert [level.name for level in cluster.levels] == ["group", "server", "rack", "spine"]
    assert load_cluster("910c", 768).levels[1].name == "super-pod"
    assert all(set(level.sources) for level in cluster.levels)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean '910"):
        load_device("910")
    with pytest.raises(ValueError, match="FAMILY-COUNT"):
        load_cluster("910a")
    with pytest.raises(ValueError, match="mindspore"):
        load_stack("mindspor")


def test_cluster_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "device: 910B3\ncount: 32\nlevels:\n"
        "  server: {size: 8, bandwidth: 1e11, latency: {value: 1e-6, source: measured}, inner: true}\n"
        "  spine: {size: 0, bandwidth: 2e10, latency: 1e-5}\n"
    )
    cluster = load_cluster(str(path))
    assert (cluster.count, cluster.levels[0].sources["latency"]) == (32, "measured")
    assert load_cluster(str(path), 64).count == 64
    level = "{size: 8, bandwith: 1e11, latency: 1e-6}"
    path.write_text(f"device: 910B3\nlevels: {{server: {level}}}\ncount: 8\n")
    with pytest.raises(ConfigError, match="did you mean 'bandwidth'"):
        load_cluster(str(path))


def test_levels_must_nest():
    with pytest.raises(ConfigError, match="no multiple of 8"):
        Cluster("odd", TOY.device, (Level("server", 8, 1.0, 0.0), Level("rack", 12, 1.0, 0.0)), 24)


def test_constants_outside_their_bounds_are_refused():
    with pytest.raises(ConfigError, match="matmul: 1.5 must lie in"):
        Constants(matmul=1.5)


def test_fans_follow_strides():
    links = Links(TOY)
    assert links.fan(4, 1) == (4, 1)
    assert links.fan(8, 1) == (4, 2)
    assert links.fan(4, 4) == (1, 4)
    assert links.fan(4, 2) == (2, 2)
    assert links.fan(1, 1) == (1, 1)


def test_gather_inside_a_server():
    assert Links(TOY).gather(100.0, (4, 1)) == pytest.approx(0.75)
    assert Links(TOY).reduce(100.0, (4, 1)) == pytest.approx(1.5)
    assert Links(TOY).gather(100.0, (1, 1)) == 0.0


def test_gather_across_servers_shares_the_links_that_leave():
    alone = Links(TOY).gather(100.0, (1, 4))
    together = Links(TOY, rings=True).gather(100.0, (4, 4))
    assert alone == pytest.approx(0.75 * 100 / 5)  # 10 bytes/s, twice oversubscribed
    assert together == pytest.approx(15 / 16 * 100 / 20)
    assert Links(TOY).gather(100.0, (4, 4)) == pytest.approx(min(together, 0.75 + 0.75 * 100 / 20))


def test_ring_latency_grows_with_every_rank_and_level_latency_does_not():
    levels = (Level("server", 4, 1e30, 1.0, inner=True), Level("fabric", 0, 1e30, 10.0))
    cluster = Cluster("slow", TOY.device, levels, 16)
    assert Links(cluster, rings=True).gather(1.0, (4, 4)) == pytest.approx(4 * 3 + 30)
    assert Links(cluster).gather(1.0, (4, 4)) == pytest.approx(3 + 30)


def test_messages_take_the_level_they_cross():
    links = Links(TOY)
    assert links.send(100.0, 1) == pytest.approx(1.0)
    assert links.send(100.0, 4) == pytest.approx(20.0)


def cluster_yaml(**changes):
    """A cluster of two servers; a change is the value at a dotted place."""
    device = {"peak": 1e14, "memory": 6e10, "usable": 0.9, "bandwidth": 1e12}
    server = {"size": 8, "bandwidth": 2e11, "latency": 5e-6, "inner": True}
    values = {"device": device, "levels": {"server": server, "rack": {**server, "size": 0}}, "count": 16}
    for place, value in changes.items():
        *path, last = place.split("__")
        inner = values
        for key in path:
            inner = inner[key]
        inner[last] = value
    return values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": ["910A"]}, "device: \\['910A'\\] must be a name or a mapping"),
        ({"device__peak": 0.0}, "device.peak: 0.0 must be a number above 0"),
        ({"device__memory": -1.0}, "device.memory: -1.0 must be a number above 0"),
        ({"device__bandwidth": math.inf}, "device.bandwidth: inf must be a finite number"),
        ({"device__usable": 1.5}, "device.usable: 1.5 must be a share of at most 1"),
        ({"levels__server": 5}, "levels.server: 5 must be a mapping of fields"),
        ({"levels__server__bandwidth": 0.0}, "levels.server.bandwidth: 0.0 must be a number above 0"),
        ({"levels__server__latency": math.nan}, "levels.server.latency: nan must be a finite number"),
        ({"levels__server__size": -8}, "levels.server.size: -8 must not be negative"),
        ({"levels__rack__oversubscription": 0.0}, "oversubscription: 0.0 must be a number above 0"),
        ({"count": True}, "count \\(a number\\)"),
        ({"count": 2**20 + 1}, "count: 1048577 devices; give at least 1, at most 1,048,576"),
    ],
)
def test_figures_that_no_cluster_has(change, words, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(cluster_yaml(), sort_keys=False))
    assert load_cluster(str(path)).count == 16
    path.write_text(yaml.safe_dump(cluster_yaml(**change), sort_keys=False))
    with pytest.raises(ValueError, match=words) as refused:
        load_cluster(str(path))
    assert "mine.yaml: " in str(refused.value)


@pytest.mark.parametrize("name", ["910a-", "910a-8x", "910a-\u00b2", "910a-" + "9" * 5000])
def test_numbers_of_devices_that_are_none(name):
    with pytest.raises(ValueError, match="write FAMILY-COUNT"):
        load_cluster(name)


DEVICES = {"devices": {"mine": {"peak": 1e12, "memory": 8e9, "usable": 0.5, "bandwidth": 1e11}}}


def family(device, **levels):
    rates = {name: {"size": size, "bandwidth": 1e10, "latency": 1e-5} for name, size in levels.items()}
    return {"device": device, "levels": rates}


def written(folder, name, values):
    path = folder / name
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


def test_own_families_with_own_devices(tmp_path):
    """Two files in the form of the shipped ones; devices of the own one go before the shipped ones."""
    clusters = {"here": family("mine", server=8) | {"count": 16}, "there": family("910B2", server=8)}
    path = written(tmp_path, "clusters.yaml", clusters)
    with pytest.raises(ValueError, match="device 'mine' is unknown"):
        load_cluster(f"{path}:here")
    written(tmp_path, "devices.yaml", DEVICES)
    here = load_cluster(f"{path}:here")
    assert (here.device.name, here.device.peak, here.count) == ("mine", 1e12, 16)
    there = load_cluster(f"{path}:there-64")
    assert (there.device, there.count) == (load_device("910B2"), 64)
    assert load_cluster(f"{path}:there", 24).count == 24
    with pytest.raises(ValueError, match=f"describes here, there; choose one, as in {path}:here"):
        load_cluster(path)
    with pytest.raises(ValueError, match="cluster family 'hare' is unknown"):
        load_cluster(f"{path}:hare")
    alone = written(tmp_path, "one.yml", {"here": clusters["here"]})
    assert load_cluster(alone).count == 16


def test_a_file_of_one_cluster_has_no_families(tmp_path):
    path = written(tmp_path, "mine.yaml", cluster_yaml())
    with pytest.raises(ValueError, match="describes one cluster and no families; leave out :here"):
        load_cluster(f"{path}:here")
    written(tmp_path, "devices.yaml", {"devices": [1]})
    with pytest.raises(ValueError, match="devices.yaml: devices: .* must be a mapping by name"):
        load_cluster(path)
