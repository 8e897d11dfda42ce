"""What the planner answers with the measured numbers, and with the shipped ones of the same family."""

from __future__ import annotations

from typing import Any

from pangu_alpha.cluster_check.calibration import CLUSTERS, planner_files
from pangu_alpha.cluster_check.judge.overlap import hidden_share
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.records import read_records, read_result
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
_USED = {**_NEEDED, "overlap": "joined"}


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
    files = planner_files(setup, records["speed"][0], records["links"], hidden)
    for name, values in files.items():
        write_text(place.out / name, yaml_text(values))
    model = load_model_config(_MODELS[setup.device])
    found = {"measured": _plans(model, load_cluster(str(place.out / CLUSTERS)))}
    if setup.cluster:
        found["shipped"] = _plans(model, load_cluster(setup.cluster, setup.size))
    verdicts = {name: result.verdict if result else "not run" for name, result in results.items()}
    return {"model": _MODELS[setup.device], "plans": found, "verdicts": verdicts}


def _plans(model: ModelConfig, cluster: Cluster) -> list[dict[str, Any]]:
    """The best plans with their predicted seconds, the fastest first."""
    question = Question(model, cluster, load_stack("pangu-alpha"), _SEQUENCES * cluster.count)
    return [{"plan": to_mapping(each.plan), "seconds": each.seconds} for each in search(question, _TOP).best]
