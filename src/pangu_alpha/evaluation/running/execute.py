"""Computes plans with a network, item by item in groups, and writes each group's samples as it is done."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pangu_alpha.evaluation.running.answers import extract
from pangu_alpha.evaluation.running.network import Network
from pangu_alpha.evaluation.running.plan import Plan
from pangu_alpha.evaluation.running.prompts import Prompt, PromptMaker, pick
from pangu_alpha.evaluation.running.samples import SampleFile, join_shares, sample_of
from pangu_alpha.evaluation.running.scoring_rules import ScoredText, scored_text
from pangu_alpha.evaluation.tasks.item import Item
from pangu_alpha.files.reading import read_json
from pangu_alpha.files.writing import json_text, write_json

logger = logging.getLogger(__name__)

_RUN = "run.json"
_EVERY = 30.0  # seconds between two lines of progress where there is no terminal


@dataclass(frozen=True)
class Share:
    """The part of the groups that one of several processes computes: every `size`-th, from `rank` on."""

    rank: int = 0
    size: int = 1

    def suffix(self) -> str:
        """End of the names of its files."""
        return "" if self.size == 1 else f".part{self.rank}of{self.size}"


class OtherRunError(ValueError):
    """The output folder has the results of other settings."""


def samples_path(out: Path, plan: Plan, stamp: str, share: Share | None = None) -> Path:
    """The samples file of a plan, or of a share of it."""
    end = share.suffix() if share is not None else ""
    return out / plan.folder / f"samples_{plan.task.name}_{stamp}.jsonl{end}"


def stamp_of(settings: dict[str, Any]) -> str:
    """A short name for settings, which stands where lm-evaluation-harness's files have a time.

    A resumed evaluation so finds its files.
    """
    return hashlib.sha256(json_text(settings).encode()).hexdigest()[:12]


def hold_run(out: Path, settings: dict[str, Any]) -> None:
    """Writes run.json into the output folder, or checks that it is of the same settings.

    Raises:
        OtherRunError: It is of others; names the first that differs.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / _RUN
    if path.exists():
        before = read_json(path)
        for key, value in settings.items():
            old = before.get(key) if isinstance(before, dict) else None
            if old != value:
                raise OtherRunError(
                    f"{out}: holds an evaluation with another {key}; give another folder by --out, "
                    "or remove this one"
                )
        return
    write_json(path, settings)


def run_plans(
    network: Network, plans: Sequence[Plan], out: Path, stamp: str, share: Share | None = None
) -> None:
    """Computes what the samples files of plans lack.

    Args:
        out: Folder of the results.
        stamp: See `stamp_of`.
        share: The part of this process; None is all.

    Raises:
        ValueError: An item cannot be computed; the message names it. The samples before it stay.
    """
    share = share or Share()
    progress = Progress(sum(len(_groups(plan, share)) for plan in plans))
    for plan in plans:
        _run_plan(network, plan, SampleFile(samples_path(out, plan, stamp, share)), share, progress)
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
        prompts = [maker.make(item) for item in items]
        results = _each_named(network, plan, maker, prompts)
        file.append(
            [sample_of(start + n, *pair) for n, pair in enumerate(zip(prompts, results, strict=True))]
        )
        progress.step(plan.title, len(items))


def _each_named(
    network: Network, plan: Plan, maker: PromptMaker, prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """The results of a group; if it fails, of its items one by one, so that the error names the item."""
    compute = _generated if plan.task.family == "generation" else _scored
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
    nats = iter(network.nats([text.pair for row in rows for text in row]))
    return [
        _decided(plan, prompt, row, [next(nats) for _ in row])
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def _encoded(network: Network, rule: str, prompt: Prompt) -> list[ScoredText]:
    encode = network.tokenizer.encode_batch
    heads = {
        head: ids for head in {head for head, _ in prompt.texts} for ids in [network.tokenizer.encode(head)]
    }
    wholes = encode([head + tail for head, tail in prompt.texts])
    texts = zip(prompt.texts, wholes, strict=True)
    return [scored_text(rule, heads[head], whole, network) for (head, _), whole in texts]


def _decided(plan: Plan, prompt: Prompt, texts: list[ScoredText], nats: list[np.ndarray]) -> dict[str, Any]:
    sums = [float(np.sum(each, dtype=np.float64)) for each in nats]
    scores = [total / text.divisor for total, text in zip(sums, texts, strict=True)]
    if not np.isfinite(scores).all():
        raise ValueError("its nats are not finite")
    result: dict[str, Any] = {
        "resps": [[[str(-total)]] for total in sums],
        "filtered_resps": [[str(-total)] for total in sums],
        "scores": scores,
        "tokens": [len(each) for each in nats],
    }
    if plan.task.family == "perplexity":
        return result | {"nats": sums[0]}
    chosen, tied = pick(scores, prompt.item, plan.task.name, plan.seed)
    assert prompt.item.gold is not None
    return result | {"prediction": chosen, "tied": tied, "acc": float(chosen == prompt.item.gold)}


def _generated(
    network: Network, plan: Plan, maker: PromptMaker, prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Continues every prompt, and takes the answer out of the text."""
    template = plan.template
    texts = network.generate(
        [prompt.texts[0][0] for prompt in prompts], template.max_new_tokens, template.stop, plan.sampling
    )
    results = []
    for prompt, text in zip(prompts, texts, strict=True):
        answer = extract(template, text, prompt.item.references[0], network.tokenizer)
        results.append({"resps": [[text]], "filtered_resps": [answer], "prediction": answer})
    return results


def put_together(plans: Sequence[Plan], out: Path, stamp: str, size: int) -> None:
    """Joins what several processes wrote into the files that one process writes."""
    for plan in plans:
        path = samples_path(out, plan, stamp)
        parts = [samples_path(out, plan, stamp, Share(rank, size)) for rank in range(size)]
        if any(part.exists() for part in parts):
            join_shares(parts, path)


class Progress:
    """Shows how far an evaluation is and how long it takes: a bar on a terminal, else a line now and then.

    Args:
        groups: Number of groups of items in all.
    """

    def __init__(self, groups: int) -> None:
        self._groups, self._done, self._computed, self._items = groups, 0, 0, 0
        self._began = self._last = time.monotonic()
        self._bar = tqdm(total=groups, unit="group", disable=not sys.stderr.isatty())

    def skip(self, groups: int) -> None:
        """Counts groups that were there before."""
        self._done += groups
        self._bar.update(groups)
        self._bar.unpause()

    def step(self, title: str, items: int) -> None:
        """Counts a group that was computed."""
        self._done, self._computed, self._items = self._done + 1, self._computed + 1, self._items + items
        self._bar.set_description(title, refresh=False)
        self._bar.update(1)
        now = time.monotonic()
        if self._bar.disable and (now - self._last >= _EVERY or self._computed == 1):
            self._last = now
            logger.info("%s", self._line(title, now))

    def _line(self, title: str, now: float) -> str:
        seconds = max(now - self._began, 1e-9)
        left = seconds / self._computed * (self._groups - self._done)
        rate = self._items / seconds
        return f"{title}: {self._done}/{self._groups} groups, {rate:.1f} items/s, {_duration(left)} left"

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    return (
        f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60} s"
    )
