"""Whether the network is the official one: logits, losses, gradients and six steps, in every type."""

from __future__ import annotations

from collections.abc import Iterator

from pangu_alpha.cluster_check.check import Evidence, Finding

WHAT = {
    "logits": "logits, in units of the largest",
    "losses": "losses of tokens, in units of the largest",
    "gradients": "gradients, in units of the tensor's largest",
    "step losses": "losses of six steps, in units of the largest",
    "weights": "weights after six steps, in units of their movement",
}


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields one finding for each kind of difference and type."""
    for dtype, found in evidence.one("device")["types"].items():
        for name, what in WHAT.items():
            value = float("nan") if found[name] is None else found[name]
            yield evidence.at_most(f"{dtype}: {what}", value, f"{dtype} {name}")
        losses = " ".join("none" if each is None else f"{each:.4f}" for each in found["steps"]["losses"])
        yield Finding(f"{dtype}: losses of the steps", losses)
