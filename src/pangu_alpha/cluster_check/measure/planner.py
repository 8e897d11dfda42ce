"""What the planner answers with the measured numbers, and with the shipped ones of the same family."""

from __future__ import annotations

from typing import Any

from pangu_alpha.cluster_check.calibration import cluster_values
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.records import read_records, read_result
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.files.writing import write_text
from pangu_alpha.files.yaml_text import yaml_text
from pangu_alpha.planner.cost.hardware import Cluster, load_cluster, load_stack
from pangu_alpha.planner.search.search import Question, search

FILE = "cluster.yaml"
_MODELS = {"CPU": "tiny", "Ascend": "2_6b"}
_TOP = 5
_SEQUENCES = 8  # of a step for each device


def measure(place: Place) -> dict[str, Any]:
    """Writes cluster.yaml, and returns the best plans by the measured and by the shipped numbers."""
    setup = place.setup
    records = {}
    for name, measurement, ranks in (("speed", "device", 1), ("links", "joined", setup.size)):
        result = read_result(place.out, name)
        if result is None or measurement not in result.records:
            raise ValueError(f"{name}: has no measurement yet, and its numbers are needed here")
        records[name] = read_records(place.out / result.records[measurement], tuple(range(ranks)))
    path = place.out / FILE
    write_text(path, yaml_text(cluster_values(setup, records["speed"][0], records["links"])))
    model = load_model_config(_MODELS[setup.device])
    found = {"measured": _plans(model, load_cluster(str(path)))}
    if setup.cluster:
        found["shipped"] = _plans(model, load_cluster(setup.cluster, setup.size))
    return {"model": _MODELS[setup.device], "plans": found}


def _plans(model: ModelConfig, cluster: Cluster) -> list[dict[str, Any]]:
    """The best plans with their predicted seconds, the fastest first."""
    question = Question(model, cluster, load_stack("pangu-alpha"), _SEQUENCES * cluster.count)
    return [{"plan": to_mapping(each.plan), "seconds": each.seconds} for each in search(question, _TOP).best]
