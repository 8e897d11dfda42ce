"""Computes plans with a network, item by item in groups, and writes each group as it is done."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.evaluation.running.answers import extract
from pangu_alpha.evaluation.running.candidates import pick
from pangu_alpha.evaluation.running.network import Network
from pangu_alpha.evaluation.running.plan import Plan
from pangu_alpha.evaluation.running.progress import Progress
from pangu_alpha.evaluation.running.prompts import Prompt, PromptMaker
from pangu_alpha.evaluation.running.samples import SampleFile, join_shares, line_of
from pangu_alpha.evaluation.running.scoring_rules import ScoredText, scored_text
from pangu_alpha.evaluation.tasks.item import Item
from pangu_alpha.files.reading import read_json
from pangu_alpha.files.writing import write_json

logger = logging.getLogger(__name__)

RUN = "run.json"
_PARTS = "computed"  # folder of what is computed so far


@dataclass(frozen=True)
class Share:
    """The part of the groups that one of several processes computes: every `size`-th, from `rank` on."""

    rank: int = 0
    size: int = 1

    def suffix(self) -> str:
        """End of the names of its files."""
        return "" if self.size == 1 else f".part{self.rank}of{self.size}"


class OtherRunError(ValueError):
    """The output folder has results of another network or of other settings."""


def computed_path(out: Path, plan: Plan, share: Share | None = None) -> Path:
    """The file of what is computed of a plan, or of a share of it."""
    return out / _PARTS / f"{plan.name}.jsonl{share.suffix() if share is not None else ''}"


def hold_run(out: Path, network: dict[str, Any], plans: Sequence[Plan]) -> None:
    """Notes network and plans in the output folder's run.json; plans may be added to it, but not changed.

    Args:
        network: What tells the network, as plain values.

    Raises:
        OtherRunError: The folder is of another network, or has a plan of this name with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    path, settings = out / RUN, {plan.name: plan.settings() for plan in plans}
    before = read_run(out) if path.exists() else {"network": network, "plans": {}, "started": {}}
    _compare(out, "the network", before["network"], network)
    for name, values in settings.items():
        _compare(out, name, before["plans"].get(name, values), values)
    now = {_together(plans): datetime.now().isoformat(timespec="seconds")}
    write_json(
        path,
        {
            "network": network,
            "plans": {**before["plans"], **settings},
            "started": {**now, **before["started"]},
        },
    )


def read_run(out: Path) -> dict[str, Any]:
    """Returns the content of run.json.

    Raises:
        OtherRunError: It is not what `hold_run` writes.
    """
    value = read_json(out / RUN)
    keys = ("network", "plans", "started")
    if not isinstance(value, dict) or not all(isinstance(value.get(key), dict) for key in keys):
        raise OtherRunError(f"{out / RUN}: is no file of an evaluation; give another folder by --output")
    return value


def started_of(out: Path, plans: Sequence[Plan]) -> datetime:
    """When the evaluation of these plans began, before any interruption."""
    return datetime.fromisoformat(read_run(out)["started"][_together(plans)])


def _together(plans: Sequence[Plan]) -> str:
    return hashlib.sha256("\n".join(plan.name for plan in plans).encode()).hexdigest()[:16]


def _compare(out: Path, what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    for key, value in now.items():
        if before.get(key) != value:
            raise OtherRunError(
                f"{out}: holds results of {what} with {key} {before.get(key)!r}, which is {value!r} now; "
                "give another folder by --output, or remove this one"
            )


def run_plans(network: Network, plans: Sequence[Plan], out: Path, share: Share | None = None) -> None:
    """Computes what the files of plans lack.

    Args:
        out: Folder of the results.
        share: The part of this process; None is all.

    Raises:
        ValueError: An item cannot be computed; the message names it. What was computed before it stays.
    """
    share = share or Share()
    progress = Progress(sum(len(_groups(plan, share)) for plan in plans))
    try:
        for plan in plans:
            _run_plan(network, plan, SampleFile(computed_path(out, plan, share)), share, progress)
    finally:
        progress.close()


def _groups(plan: Plan, share: Share) -> list[tuple[int, Sequence[Item]]]:
    return [chunk for n, chunk in enumerate(plan.chunks()) if n % share.size == share.rank]


def _run_plan(network: Network, plan: Plan, file: SampleFile, share: Share, progress: Progress) -> None:
    groups = _groups(plan, share)
    done = file.resume([range(start, start + len(items)) for start, items in groups])
    if done:
        logger.info("%s: %d of %d groups are there already", plan.title, done, len(groups))
    progress.skip(done)
    maker = plan.maker(network)
    for start, items in groups[done:]:
        file.append(_lines(network, plan, maker, start, items))
        progress.step(plan.title, len(items))


def _lines(
    network: Network, plan: Plan, maker: PromptMaker, start: int, items: Sequence[Item]
) -> list[dict[str, Any]]:
    """Computes a group, and returns its items' objects; the first item has the number `start`."""
    prompts = [maker.make(item) for item in items]
    rows = zip(items, prompts, _each_named(network, plan, maker, prompts), strict=True)
    return [line_of(start + n, item.fields, prompt, result) for n, (item, prompt, result) in enumerate(rows)]


Compute = Callable[[Network, Plan, PromptMaker, Sequence[Prompt]], list[dict[str, Any]]]


def _each_named(
    network: Network, plan: Plan, maker: PromptMaker, prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """The results of a group; if it fails, of its items one by one, so that the error names the item."""
    compute: Compute = _generated if plan.task.family == "generation" else _scored
    try:
        return compute(network, plan, maker, prompts)
    except ValueError:
        for prompt in prompts:
            try:
                compute(network, plan, maker, [prompt])
            except ValueError as error:
                raise ValueError(f"{prompt.item.where} (item {prompt.item.id}): {error}") from error
        raise


def _scored(
    network: Network, plan: Plan, maker: PromptMaker, prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Scores every candidate, and picks the one of the smallest score."""
    rows = [_encoded(network, maker.scoring, prompt) for prompt in prompts]
    found = iter(network.predict([text.pair for row in rows for text in row]))
    pairs = zip(prompts, rows, strict=True)
    return [_decided(plan, prompt, row, [next(found) for _ in row]) for prompt, row in pairs]


def _encoded(network: Network, rule: str, prompt: Prompt) -> list[ScoredText]:
    tokenizer = network.tokenizer
    heads = {head: tokenizer.encode(head) for head in dict.fromkeys(head for head, _ in prompt.texts)}
    wholes = tokenizer.encode_batch([head + tail for head, tail in prompt.texts])
    texts = zip(prompt.texts, wholes, strict=True)
    return [scored_text(rule, heads[head], whole, network) for (head, _), whole in texts]


def _decided(
    plan: Plan, prompt: Prompt, texts: list[ScoredText], found: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    sums = [float(np.sum(nats, dtype=np.float64)) for nats, _ in found]
    scores = [total / text.divisor for total, text in zip(sums, texts, strict=True)]
    if not np.isfinite(scores).all():
        raise ValueError("its nats are not finite: the weights hold NaN, or are too large")
    result: dict[str, Any] = {
        "nats": sums,
        "tokens": [len(nats) for nats, _ in found],
        "greedy": [bool(np.all(likeliest)) for _, likeliest in found],
        "scores": scores,
    }
    if plan.task.family == "perplexity":
        return result
    chosen, tied = pick(scores, prompt.item, plan.task.name, plan.seed)
    return result | {"prediction": chosen, "tied": tied}


def _generated(
    network: Network, plan: Plan, maker: PromptMaker, prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Continues every prompt, and takes the answer out of the text."""
    template, asked = plan.template, [prompt.texts[0][0] for prompt in prompts]
    texts = network.generate(asked, template.max_new_tokens, template.stop, plan.sampling)
    return [
        {"text": text, "prediction": extract(template, text, prompt.item.references[0], network.tokenizer)}
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def compute_plan(network: Network, plan: Plan) -> list[dict[str, Any]]:
    """Computes all items of a plan without files, and returns them as `SampleFile.read` would."""
    maker = plan.maker(network)
    return [line for start, items in plan.chunks() for line in _lines(network, plan, maker, start, items)]


def put_together(plans: Sequence[Plan], out: Path, size: int) -> None:
    """Joins what several processes computed into the files that one process writes."""
    for plan in plans:
        parts = [computed_path(out, plan, Share(rank, size)) for rank in range(size)]
        if any(part.exists() for part in parts):
            join_shares(parts, computed_path(out, plan))
