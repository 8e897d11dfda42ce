"""What the planner answers with the measured numbers, and with the shipped ones of the same family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pangu_alpha.cluster_check.calibration import CLUSTERS, Measured, planner_files
from pangu_alpha.cluster_check.check import Record
from pangu_alpha.cluster_check.judge.npu_smi import devices_of
from pangu_alpha.cluster_check.judge.overlap import hidden_share
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.records import read_records, read_result
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.files.writing import write_text
from pangu_alpha.files.yaml_text import yaml_text
from pangu_alpha.planner.cost.hardware import Cluster, load_cluster, load_stack
from pangu_alpha.planner.search.search import Question, search

_MODELS = {"CPU": "tiny", "Ascend": "2_6b"}
_TOP = 5
_SEQUENCES = 8  # of a step for each device
_NEEDED = {"speed": "device", "links": "joined"}  # checks whose numbers are needed, and the measurement
_USED = {**_NEEDED, "overlap": "joined", "environment": "machine"}


def measure(place: Place) -> dict[str, Any]:
    """Writes devices.yaml and clusters.yaml; returns the best plans by measured and by shipped numbers."""
    setup = place.setup
    results = {name: read_result(place.out, name) for name in _USED}
    records = {
        name: read_records(place.out / result.records[_USED[name]])
        for name, result in results.items()
        if result is not None and _USED[name] in result.records
    }
    if missing := [name for name in _NEEDED if name not in records]:
        raise ValueError(f"{missing[0]}: has no measurement yet, and its numbers are needed here")
    hidden = hidden_share(records["overlap"]) if "overlap" in records else None
    memory = device_memory(setup, records["speed"][0], records.get("environment", ()))
    for name, values in planner_files(
        setup, Measured(records["speed"][0], records["links"], memory, hidden)
    ).items():
        write_text(place.out / name, yaml_text(values))
    model = load_model_config(_MODELS[setup.device])
    found = {"measured": _plans(model, load_cluster(str(place.out / CLUSTERS)))}
    if setup.cluster:
        found["shipped"] = _plans(model, load_cluster(setup.cluster, setup.size))
    verdicts = {name: result.verdict if result else "not run" for name, result in results.items()}
    return {"model": _MODELS[setup.device], "plans": found, "verdicts": verdicts}


def device_memory(setup: Setup, speed: Record, machines: Sequence[Record]) -> float:
    """Bytes of a device: a rank's share of the host's memory on CPU, on Ascend what npu-smi showed.

    Raises:
        ValueError: Neither the set-up's family nor npu-smi says it.
    """
    if setup.device == "CPU":
        return float(speed["host_memory"]) / len(setup.nodes[0])
    sizes = [npu.memory for each in machines for npu in devices_of(each["npu_smi"]).values()]
    if sizes:
        return min(sizes) * 2.0**20
    if setup.cluster:
        return load_cluster(setup.cluster, setup.size).device.memory
    raise ValueError("memory of a device: npu-smi did not show it; name the devices with --chip or --cluster")


def _plans(model: ModelConfig, cluster: Cluster) -> list[dict[str, Any]]:
    """The best plans with their predicted seconds, the fastest first."""
    question = Question(model, cluster, load_stack("pangu-alpha"), _SEQUENCES * cluster.count)
    return [{"plan": to_mapping(each.plan), "seconds": each.seconds} for each in search(question, _TOP).best]
