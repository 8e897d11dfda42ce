"""An engine's process without a network: the real loop and scheduler over a decoder whose logits are known.

Run by its path with the options of `main` and the socket's number last, as the front does.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pangu_alpha.serving.engine.process import Described, serve_front  # noqa: E402
from pangu_alpha.text.tokenizer import PanguTokenizer  # noqa: E402
from tests.inference.engine.fake_decoder import FakeDecoder  # noqa: E402

# What it says again and again, if it is asked for the likeliest.
SCRIPT = "却说曹操引兵大进，次日天明，玄德与孔明商议。"


class ScriptedDecoder(FakeDecoder):
    """Says the script: after n ids, its n-th token is much the likeliest.

    Args:
        script: Ids.
        delay: Seconds of a step, and of a fed chunk.
    """

    def __init__(self, script, delay, **shape) -> None:
        super().__init__(**shape)
        self.script, self.delay = script, delay
        # What it notes of each call for the engine's tests would let a server's memory grow.
        self.fed, self.copies, self.steps = deque(maxlen=9), deque(maxlen=9), deque(maxlen=9)

    def logits(self, ids):
        found = super().logits(ids).copy()
        found[self.script[len(ids) % len(self.script)]] += 12
        return found

    def score(self, row, ids, start):
        time.sleep(self.delay)
        return super().score(row, ids, start)

    def step(self, tokens, active):
        time.sleep(self.delay)
        return super().step(tokens, active)


def describe_with(options):
    """Makes the `describe` of serve_front."""

    def describe(settings):
        if settings.checkpoint == "refused":
            raise ValueError("refused: this checkpoint cannot be opened; name another one")
        if options.die:
            os._exit(9)
        tokenizer = PanguTokenizer(options.vocabulary)
        end = tokenizer.eot_id
        shape = {
            "rows": settings.slots,
            "pinned": settings.pinned,
            "context": settings.context or 256,
            "chunk": options.chunk,
            "vocab_size": tokenizer.vocab_size + 4,  # a network may have more ids than its vocabulary
        }
        beyond = range(tokenizer.vocab_size, tokenizer.vocab_size + 4)
        return Described(
            vocabulary=options.vocabulary,
            vocab_size=tokenizer.vocab_size + 4,
            end_of_document=end,
            context=shape["context"],
            name="fake",
            lines=["a decoder of known logits"],
            banned={*tokenizer.control_ids, tokenizer.unk_id, *beyond} - {end},
            load=lambda: (_decoder(tokenizer, options, shape), {"step": 0.0}),
        )

    return describe


def _decoder(tokenizer, options, shape):
    time.sleep(options.load)
    if options.script:
        return ScriptedDecoder(tokenizer.encode(SCRIPT), options.delay, **shape)
    found = ScriptedDecoder([0], options.delay, **shape)
    found.table[:, tokenizer.eot_id] -= 1.0
    found.logits = lambda ids: FakeDecoder.logits(found, ids)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--load", type=float, default=0.0, help="seconds of loading")
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--script", action="store_true")
    parser.add_argument("--die", action="store_true", help="crash at the start")
    parser.add_argument("descriptor", type=int)
    options = parser.parse_args()
    np.seterr(all="ignore")
    return serve_front(options.descriptor, describe_with(options))


if __name__ == "__main__":
    sys.exit(main())
