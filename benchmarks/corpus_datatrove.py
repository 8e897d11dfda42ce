"""Signs the texts of a JSON file with datatrove for every line on stdin, and prints the seconds.

Runs in an environment of its own, for datatrove needs numpy 2: corpus_speed.py starts it with --datatrove.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Reads the settings and the texts, then answers."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout; only figures may go there
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig

    path, bands, rows, n = sys.argv[1], *map(int, sys.argv[2:])
    texts = json.loads(Path(path).read_text("utf-8"))
    config = MinhashConfig(
        n_grams=n, num_buckets=bands, hashes_per_bucket=rows, hash_config=HashConfig(precision=64)
    )
    with tempfile.TemporaryDirectory() as folder:
        step = MinhashDedupSignature(folder, config=config, language="cmn_Hani")
        for _ in sys.stdin:
            began = time.perf_counter()
            for text in texts:
                shingles = step.get_shingles(text)
                if len(shingles):
                    step.get_signature(shingles)
            print(json.dumps({"seconds": time.perf_counter() - began}), file=out, flush=True)


if __name__ == "__main__":
    main()
