"""Reads tables of published step times as jobs, and reports which rows it cannot read.

Knows two schemas: one row per run with columns such as source_set, model, dp, recompute, step_time_s,
quality; and vTrain's single-server table ("# GPUs", "global batch", ...), whose set is named single_node.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.planner.cost.hardware import Cluster, Stack, load_cluster, load_stack
from pangu_alpha.planner.cost.job import Job, Sharding
from pangu_alpha.planner.cost.shapes import Shape

_FAMILIES = {  # part of a device's name -> cluster family ("" is unknown); the first match counts
    "910a or 910b": "",
    "910a": "910a",
    "910b": "910b",
    "910c": "910c",
    "a100-80": "a100-80",
    "a100-40": "a100-40",
    "a100": "a100-80",
    "h100": "h100",
}
_NO_WORK = ("dropout", "activation")  # fields of Shape that the names of groups leave out
_NOT_STATED = ("", "unknown", "none", "null", "nan")


@dataclass(frozen=True)
class Row:
    """A measured step.

    Args:
        name: Its id in the table, or its line.
        set: The set of measurements it belongs to.
        group: What it has in common with rows of equal work on equal devices.
        quality: "A" as published, "B" some fields derived, "C" ambiguous.
        job: The job; where gradients are accumulated, for the whole optimizer step.
        repeats: How many times a step of `job` does the measured work.
    """

    name: str
    set: str
    group: tuple
    quality: str
    job: Job
    cluster: Cluster
    stack: Stack
    repeats: int
    seconds: float


@dataclass(frozen=True)
class Table:
    """The rows of a table.

    Args:
        rows: Readable rows of every quality.
        unreadable: (set, reason) for each row that could not be read.
    """

    rows: tuple[Row, ...]
    unreadable: tuple[tuple[str, str], ...]


def read_table(path: str | Path) -> Table:
    """Reads a table of either schema.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If its columns fit neither schema.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    columns = set(lines[0]) if lines else set()
    if "# GPUs" in columns:
        return _read(lines, _single_node_row)
    if not {"source_set", "layers", "step_time_s"} <= columns:
        raise ValueError(
            f"{path}: found the columns {', '.join(sorted(columns)) or 'none'}; expected source_set, layers, "
            "step_time_s and the like, or vTrain's '# GPUs', 'global batch' and the like"
        )
    return _read(lines, _published_row)


def _read(lines: list[dict[str, str]], parse: Callable[[Mapping[str, str], str], Row]) -> Table:
    rows, unreadable = [], []
    for number, line in enumerate(lines, start=2):
        values = {key: (value or "").strip() for key, value in line.items() if key}
        name = values.get("id") or f"line {number}"
        try:
            rows.append(parse(values, name))
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            unreadable.append((values.get("source_set", "single_node"), f"row {name}: {reason}"))
    return Table(tuple(rows), tuple(unreadable))


def _number(values: Mapping[str, str], key: str, default: int | None = None) -> int:
    text = values.get(key, "")
    if text.lower() in _NOT_STATED:
        if default is None:
            raise ValueError(f"{key} is not stated")
        return default
    number = float(text)
    if not number.is_integer() or number < 1:
        raise ValueError(f"{key}: {text} is not a positive whole number")
    return int(number)


def _single_node_row(values: Mapping[str, str], name: str) -> Row:
    """Reads a row of vTrain's table: a GPT with 50257 words on one server with NVSwitch.

    The table does not say whether anything is recomputed. We assume not: one more micro-batch takes a
    pipeline as long as the layers and logits of its last stage take alone, and with recompute (four passes
    instead of three) that would mean 97 % of the peak.
    """
    layers, hidden = _number(values, "# layers"), _number(values, "hidden size")
    heads, sequence = _number(values, "attention heads"), _number(values, "sequence length")
    dp, devices = _number(values, "data parallelism"), _number(values, "# GPUs")
    batch, rows = _number(values, "global batch"), _number(values, "micro batch")
    tp, pp = _number(values, "tensor parallelism"), _number(values, "pipeline parallelism")
    seconds = float(values["iteration time (ms)"]) / 1000
    job = Job(
        shape=Shape.gpt(layers, hidden, heads, 50257, sequence),
        micro_batch=rows,
        dp=dp,
        tp=tp,
        pp=pp,
        micro_batches=_share(batch, dp * rows),
    )
    _check(job, devices, seconds)
    group = (devices, batch, hidden, layers, sequence)
    cluster = load_cluster("a100-40", max(devices, 8))
    return Row(name, "single_node", group, "A", job, cluster, load_stack("vtrain"), 1, seconds)


def _share(batch: int, parts: int) -> int:
    share, rest = divmod(batch, parts)
    if rest or not share:
        raise ValueError(f"global batch {batch} is no multiple of dp x micro batch = {parts}")
    return share


def _check(job: Job, devices: int, seconds: float) -> None:
    if job.devices != devices:
        raise ValueError(f"dp {job.dp} x tp {job.tp} x pp {job.pp} are {job.devices} devices, not {devices}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"step time {seconds} must be positive")


def _published_row(values: Mapping[str, str], name: str) -> Row:
    shape = _shape(values)
    cluster, stack = _cluster(values), _stack(values)
    devices, tp, pp = _number(values, "devices"), _number(values, "tp", 1), _number(values, "pp", 1)
    dp = _number(values, "dp", 0) or max(1, devices // (tp * pp))
    batch = _number(values, "global_batch")
    rows = _number(values, "micro_batch", 0) or _default_rows(batch // dp, pp, values)
    recompute, split = _recompute(values.get("recompute", ""), shape.layers, pp)
    repeats = _noted(values, "grad_accum") * _noted(values, "interleave")
    micro_batches = _share(batch, dp * rows)
    job = Job(
        shape=shape,
        micro_batch=rows,
        dp=dp,
        tp=tp,
        pp=pp,
        micro_batches=micro_batches * repeats,
        chunks=_chunks(values.get("vpp", ""), shape.layers, pp, micro_batches),
        sharding=_sharding(values.get("opt_parallel", ""), dp, stack),
        recompute=recompute,
        sequence_parallel=(split or values.get("seqpar", "").lower() in ("1", "1.0", "true")) and tp > 1,
    )
    seconds = float(values["step_time_s"])
    _check(job, devices, seconds)
    group = (_work(shape), batch, devices, values["device"])
    return Row(
        name, values["source_set"], group, values.get("quality", ""), job, cluster, stack, repeats, seconds
    )


def _work(shape: Shape) -> tuple:
    """The fields of a shape that a group's name contains; the name decides which half the group is in."""
    fields = (field.name for field in dataclasses.fields(shape))
    return tuple(getattr(shape, name) for name in fields if name not in _NO_WORK)


def _shape(values: Mapping[str, str]) -> Shape:
    kind = values.get("ffn_kind", "").lower()
    layers, hidden, heads = (_number(values, key) for key in ("layers", "hidden", "heads"))
    vocab, sequence = _number(values, "vocab"), _number(values, "seq")
    ffn = _number(values, "ffn", 0 if "glu" in kind else 4 * hidden)
    if kind in ("swiglu", "geglu", "gated"):
        return Shape.llama(layers, hidden, heads, _number(values, "kv_heads", heads), ffn, vocab, sequence)
    if kind in ("gelu", "relu", "fast_gelu", ""):
        return Shape.gpt(layers, hidden, heads, vocab, sequence, ffn)
    raise ValueError(f"ffn_kind: {kind!r} is not known")


def _default_rows(share: int, pp: int, values: Mapping[str, str]) -> int:
    """Rows of a micro-batch that is not stated: from the number of micro-batches, if that is stated.

    Otherwise 1 in a pipeline, and without one 4 where that divides the share.
    """
    number = _number(values, "num_micro", 0)
    if number:
        return _share(share, number)
    return 1 if pp > 1 or share % 4 else 4


def _cluster(values: Mapping[str, str]) -> Cluster:
    name = values.get("device", "")
    family = next((family for key, family in _FAMILIES.items() if key in name.lower()), "")
    if not family:
        raise ValueError(f"device {name!r} is none that the planner knows")
    cluster = load_cluster(family, max(_number(values, "devices"), 8))
    notes = values.get("note", "") + values.get("source", "")
    noted = re.search(r"inter-node (\d+) Gb/s per node|(\d+) Gbps node-node", notes)
    if not noted:
        return cluster
    rate = int(noted[1] or noted[2]) * 1e9 / 8 / cluster.server
    levels = (
        level if level.inner else dataclasses.replace(level, bandwidth=rate, oversubscription=1.0)
        for level in cluster.levels
    )
    return dataclasses.replace(cluster, levels=tuple(levels))


def _stack(values: Mapping[str, str]) -> Stack:
    sharding, device = values.get("opt_parallel", "").lower(), values["device"].lower()
    if "910" in device:
        return load_stack("mindspore" if _fused_on_ascend(values) else "mindspore-unfused")
    if "fsdp" in sharding:
        return load_stack("fsdp")
    if "zero3" in sharding:
        return load_stack("deepspeed-zero3")
    if "deepspeed" in sharding + values.get("note", "").lower():
        return load_stack("deepspeed-bf16" if "bf" in values.get("dtype", "") else "deepspeed")
    return load_stack(_megatron(values))


def _fused_on_ascend(values: Mapping[str, str]) -> bool:
    """Whether a run on Ascend fuses attention: 910A has no such operator; else name or note say it."""
    if "910a" in values["device"].lower():
        return False
    return values.get("model", "").endswith("_FA") or "FA=False" not in values.get("note", "")


def _megatron(values: Mapping[str, str]) -> str:
    """The generation of Megatron-LM: by the year of a paper, or by what the software could not do before."""
    year = re.search(r"arXiv:(\d\d)\d\d\.", values.get("source", ""))
    recompute, split = values.get("recompute", "").lower(), values.get("seqpar", "").lower()
    newer = "selective" in recompute or split in ("1", "1.0", "true") or (year and int(year[1]) >= 22)
    return "megatron-2022" if newer else "megatron"


def _sharding(text: str, dp: int, stack: Stack) -> Sharding:
    text = text.lower()
    if dp == 1 or text in ("0", "0.0", "false", *_NOT_STATED):
        return "none"
    if "fsdp" in text or "zero3" in text:
        return "level3"
    if text in ("1", "1.0", "true"):
        return "level1"
    levels: tuple[tuple[str, Sharding], ...] = (
        ("zero1", "optimizer"),
        ("zero2", "level2"),
        ("level1", "level1"),
        ("level2", "level2"),
    )
    for key, level in levels:
        if key in text:
            return level
    raise ValueError(f"opt_parallel: {text!r} is not understood")


def _noted(values: Mapping[str, str], key: str) -> int:
    found = re.search(rf"{key}=(\d+)", values.get("note", ""))
    return max(1, int(found[1])) if found else 1


def _chunks(text: str, layers: int, pp: int, micro_batches: int) -> int:
    """Chunks of a stage: as stated, or 2 (else 3) if the text only says that the schedule is interleaved."""
    found = re.search(r"\d+", text)
    if found:
        return int(found[0]) if pp > 1 else 1
    if text.lower() not in _NOT_STATED and "interleaved" not in text.lower():
        raise ValueError(f"vpp: {text!r} is not understood")
    if text.lower() in ("", "none", "null", "nan") or pp == 1 or micro_batches % pp:
        return 1
    return next((pieces for pieces in (2, 3) if layers % (pieces * pp) == 0), 1)


def _recompute(text: str, layers: int, pp: int) -> tuple[str | tuple[str, ...], bool]:
    """Recompute mode of each layer, and whether the text adds sequence parallelism."""
    word = text.lower().strip()
    split = bool(re.search(r"seq(uence)?[-_ ]?par", word))
    word = re.sub(r"[+,; ]*seq(uence)?[-_ ]?par\w*", "", word).strip()
    if word.startswith("full="):
        found = re.fullmatch(r"full=(.*?)\s+select=(.*)", word)
        if found:
            return _per_stage(found[1], found[2], layers, pp), split
    if word in ("full", "selective", "none"):
        return word, split
    if word in ("", "no", "0", "false"):
        return "none", split
    if word in ("selective op", "selective layer", "1", "true"):
        each = ("full", "none") * layers
        return "full" if word in ("1", "true") else each[:layers], split
    first = re.match(r"(full|selective|none)\b", word)
    if first:  # a remark follows the word
        return first[1], split
    raise ValueError(f"recompute: {text!r} is not understood")


def _per_stage(full: str, select: str, layers: int, pp: int) -> str | tuple[str, ...]:
    """Reads MindFormers' two settings: each is true, false, layers per stage, or a list of operators."""
    if full == "true":
        return "selective" if select == "true" else "full"
    share, rest = divmod(layers, pp)
    words: list[str] = []
    for stage in range(pp):
        size = share + (stage < rest)
        counted = min(size, _of_stage(full, stage, pp, size))
        light = min(size - counted, _of_stage(select, stage, pp, size))
        words += ["full"] * counted + ["selective"] * light + ["none"] * (size - counted - light)
    return tuple(words)


def _of_stage(text: str, stage: int, pp: int, size: int) -> int:
    """Number of a stage's layers that a setting applies to; a list of operators applies to all of them."""
    if text in ("false", "null", "none", ""):
        return 0
    found = re.search(r"\[([\d, ]+)\]", text)
    if not found:
        return size
    numbers = [int(number) for number in found[1].split(",") if number.strip()]
    if len(numbers) != pp:
        raise ValueError(f"recompute: {text} names {len(numbers)} stages, not {pp}")
    return numbers[stage]
