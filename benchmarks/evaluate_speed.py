"""Items of TNEWS scored a second, against the released way, against buckets and lm-evaluation-harness.

Two settings: six shots, the same for all items, and all 15 labels; no shots and four labels. The texts are
made up, but as long as FewCLUE's: LENGTHS counts the ids of its 2,010 test sentences in the released
vocabulary. The ids after the label count. The programs:

ours: the Scorer, batch size 8.
released: as the released scripts do, one text at a time, padded to the context, its logits on the host.
buckets: one text at a time, padded to 64, 128, .. ids, nats from the graph; what this project had before.
harness: lm-evaluation-harness's model for Hugging Face networks, GPT-2 of the same shape in torch, batch 8.

Each program is a process of its own, stopped while another one runs; rounds alternate and medians of the
rounds that nothing disturbed are compared (rounds.py). Slow programs get a part of the items. The first three
share weights, and the benchmark ends with an error if their nats differ.

--memory says instead what memory 8 texts of a full context take. Needs torch, transformers, accelerate and
lm_eval, or --no-harness. The last line is JSON: the processor, items/s and ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from programs import Program, Round, peak_memory, serve, start_all
from rounds import report, verdict

SMALL = {"hidden_size": 256, "num_layers": 4, "num_heads": 4}
SHAPES = {"4x256": SMALL, "12x768": {"hidden_size": 768, "num_layers": 12, "num_heads": 12}}
VOCABULARY, CONTEXT, END, BATCH = 40000, 1024, 9, 8
# How many of the sentences have 3, 4, .. 37 ids.
LENGTHS = (
    1, 8, 24, 39, 72, 83, 101, 98, 106, 84, 108, 123, 107, 120, 104, 119, 130, 114, 99, 106, 91, 51, 37, 26,
    19, 15, 9, 3, 3, 3, 3, 0, 2, 1, 1,
)  # fmt: skip
SHORTEST = 3
LABELS, BEFORE, AFTER, BETWEEN = 15, 2, 3, 2  # labels; ids before and after a label; ids of a line feed
SETTINGS = {"six shots, 15 labels": (6, 15), "no shots, 4 labels": (0, 4)}
# Items of a round; the released way takes so long that it gets texts instead.
ITEMS = {"ours": 100, "buckets": 2, "released": 1, "harness": 8}
RELEASED_TEXTS = 4
AGREE = 1e-4  # nats a token

Pair = tuple[list[int], list[int]]


def items(setting: str, count: int) -> list[list[Pair]]:
    """For each item, the (prefix, whole) ids of its candidates."""
    shots, ways = SETTINGS[setting]
    rng = np.random.default_rng(0)

    def ids(length: int) -> list[int]:
        return rng.integers(10, VOCABULARY, length).tolist()

    def sentence() -> list[int]:
        return ids(int(rng.choice(len(LENGTHS), p=np.divide(LENGTHS, sum(LENGTHS)))) + SHORTEST)

    before, after, line = ids(BEFORE), ids(AFTER), ids(BETWEEN)
    labels = [ids(1) for _ in range(LABELS)]
    blocks = [[*before, *labels[n], *after, *sentence(), *line] for n in range(shots)]
    start = [token for block in blocks for token in block]
    result = []
    for _ in range(count):
        chosen, text = rng.permutation(LABELS)[:ways], sentence()
        prefixes = [[*start, *before, *labels[n], *after] for n in chosen]
        result.append([(prefix, [*prefix, *text]) for prefix in prefixes])
    return result


def save_checkpoint(folder: Path, shape: str) -> None:
    """A run's folder with random weights; its vocabulary is small, because texts are made of ids."""
    from pangu_alpha.checkpoint.native.format import Manifest
    from pangu_alpha.checkpoint.native.store import CheckpointStore
    from pangu_alpha.config.model import ModelConfig
    from pangu_alpha.config.schema import to_mapping
    from pangu_alpha.model.pangu import PanguAlpha
    from pangu_alpha.text.tokenizer import PanguTokenizer
    from pangu_alpha.text.vocabulary import train_vocabulary

    train_vocabulary(["天下大势，分久必合，合久必分。"] * 20, folder / "vocab.model", 22)
    model = PanguAlpha(ModelConfig(vocab_size=VOCABULARY, seq_length=CONTEXT, **SHAPES[shape]))
    arrays = {name: value.asnumpy() for name, value in model.parameters_and_names()}
    digest = PanguTokenizer(folder / "vocab.model").digest
    manifest = Manifest(1, 0, {"model": to_mapping(model.config)}, digest)
    CheckpointStore(folder / "checkpoints", keep_last=1).save({"model": arrays}, manifest)


def timed(work: Callable[[list[list[Pair]]], Sequence[float]], setting: str, name: str) -> Round:
    """A round: seconds an item, and the mean nats of each token of the first text."""
    given = items(setting, ITEMS[name])

    def run() -> dict[str, float]:
        began = time.perf_counter()
        first = work(given)
        seconds = time.perf_counter() - began
        return {"seconds": seconds / len(given), "nats": float(np.mean(first))}

    return run


def make_ours(setting: str, shape: str) -> Round:
    """A round of the Scorer."""
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from pangu_alpha.evaluation import Scorer

    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), shape)
        scorer = Scorer(folder, BATCH)
    return timed(lambda given: scorer.nats([pair for item in given for pair in item])[0], setting, "ours")


def network(shape: str) -> Any:
    """The network with the operators for whole sequences."""
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from pangu_alpha.config.model import ModelConfig
    from pangu_alpha.model.pangu import PanguAlpha

    config = ModelConfig(vocab_size=VOCABULARY, seq_length=CONTEXT, dropout=0.0, **SHAPES[shape])
    return PanguAlpha(config).set_train(False)


def make_released(setting: str, shape: str) -> Round:
    """A round of full contexts whose logits come to the host."""
    from mindspore import Tensor

    model = network(shape)
    places = Tensor(np.arange(CONTEXT, dtype=np.int32)[None])
    mask = Tensor(np.tril(np.ones((1, CONTEXT, CONTEXT), np.float32)))

    def nats(prefix: list[int], whole: list[int]) -> np.ndarray:
        ids = np.full((1, CONTEXT), END, np.int32)
        ids[0, : len(whole)] = whole
        logits = model(Tensor(ids), places, mask).asnumpy()[0, len(prefix) - 1 : len(whole) - 1]
        shifted = logits - logits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return -logs[np.arange(len(logs)), whole[len(prefix) :]]

    (item,) = items(setting, ITEMS["released"])

    def run() -> dict[str, float]:
        began = time.perf_counter()
        found = [nats(*pair) for pair in item[:RELEASED_TEXTS]]
        seconds = (time.perf_counter() - began) / len(found)
        return {"seconds": seconds * len(item), "nats": float(np.mean(found[0]))}

    return run


def make_buckets(setting: str, shape: str) -> Round:
    """A round of single texts in the smallest of 64, 128, .. that holds them."""
    from mindspore import Tensor

    from pangu_alpha.training.loss import TokenLoss

    loss = TokenLoss(network(shape)).set_train(False)

    def nats(prefix: list[int], whole: list[int]) -> np.ndarray:
        size = 64
        while size < len(whole) - 1:
            size *= 2
        rows = np.full((2, size), END, np.int32)
        rows[0, : len(whole) - 1], rows[1, : len(whole) - 1] = whole[:-1], whole[1:]
        places, document = np.arange(size, dtype=np.int32), np.zeros(size, np.int32)
        inputs = [Tensor(each[None]) for each in (rows[0], rows[1], places, document)]
        return loss(*inputs).asnumpy()[0, len(prefix) - 1 : len(whole) - 1]

    def work(given: list[list[Pair]]) -> np.ndarray:
        return [nats(*pair) for item in given for pair in item][0]

    return timed(work, setting, "buckets")


def make_harness(setting: str, shape: str) -> Round:
    """A round of the harness's model for Hugging Face networks."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    hidden, layers, heads = (SHAPES[shape][key] for key in ("hidden_size", "num_layers", "num_heads"))
    config = GPT2Config(
        n_layer=layers, n_embd=hidden, n_head=heads, n_positions=CONTEXT, vocab_size=VOCABULARY
    )
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<unk>")
    model = HFLM(GPT2LMHeadModel(config).eval(), tokenizer=tokenizer, batch_size=BATCH, device="cpu")

    def work(given: list[list[Pair]]) -> list[float]:
        pairs = [pair for item in given for pair in item]
        asked = [(("", ""), prefix, whole[len(prefix) :]) for prefix, whole in pairs]
        return [-model._loglikelihood_tokens(asked, disable_tqdm=True)[0][0]]

    return timed(work, setting, "harness")


def make_memory(setting: str, shape: str) -> Round:
    """Peak memory before and after scoring a batch of full contexts."""
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from pangu_alpha.evaluation import Scorer

    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), shape)
        scorer = Scorer(folder, BATCH)
    rng = np.random.default_rng(0)
    texts = [[END, *rng.integers(10, VOCABULARY, CONTEXT).tolist()] for _ in range(BATCH)]
    loaded = peak_memory()

    def run() -> dict[str, float]:
        began = time.perf_counter()
        scorer.nats([(text[:1], text) for text in texts])
        return {"seconds": time.perf_counter() - began, "loaded": loaded, "memory": peak_memory()}

    return run


PROGRAMS = {
    "ours": make_ours,
    "released": make_released,
    "buckets": make_buckets,
    "harness": make_harness,
    "memory": make_memory,
}
COMPARED = ("ours", "released", "buckets", "harness")


def measure(programs: list[Program], rounds: int) -> None:
    """Rounds in turn."""
    for number in range(rounds):
        words = [f"{program.name} {program.round()['seconds'] * 1e3:.1f}" for program in programs]
        print(f"round {number + 1}: ms an item: {', '.join(words)}", flush=True)
    for each in programs:
        each.close()


def check_equal(programs: list[Program]) -> None:
    """Compares the nats of the programs that share weights.

    Raises:
        ValueError: They differ.
    """
    found = {each.name: each.rounds[-1]["nats"] for each in programs if each.name != "harness"}
    if any(abs(nats - found["ours"]) > AGREE for nats in found.values()):
        raise ValueError(f"the programs give different nats: {found}")


def compared(setting: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs the programs for one setting; fields of the JSON line.

    Raises:
        ValueError: Programs with the same weights give different nats.
    """
    names = [name for name in COMPARED if not (options.no_harness and name == "harness")]
    programs = start_all(__file__, names, (), options.threads, setting, options.shape)
    print(setting, flush=True)
    measure(programs, options.rounds)
    check_equal(programs)
    found = {program.name: program.summary() for program in programs}
    report(found)
    typical = {name: summary.median for name, summary in found.items()}
    return {
        "items_per_second": {name: round(1 / each, 3) for name, each in typical.items()},
        "ratio": {name: round(typical[name] / typical["ours"], 2) for name in names if name != "ours"},
        **verdict(found),
    }


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """What the memory of a batch is; fields of the JSON line, MB of 10^6 bytes."""
    (program,) = start_all(__file__, ["memory"], (), options.threads, "", options.shape)
    found = program.round()
    program.close()
    logits = BATCH * CONTEXT * VOCABULARY * 4 / 1e6
    print(
        f"peak memory {found['memory']:.0f} MB, of which {found['loaded']:.0f} MB with the network loaded; "
        f"the logits of the batch alone would take {logits:.0f} MB"
    )
    return {**{name: round(found[name]) for name in ("memory", "loaded")}, "logits": round(logits)}


def main() -> None:
    """Runs the programs in turn and prints their figures."""
    if sys.argv[1:2] == ["--worker"]:
        return serve(PROGRAMS[sys.argv[2]], *sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--shape", choices=SHAPES, default="4x256", help="layers x hidden size")
    parser.add_argument("--setting", choices=SETTINGS, help="one of the two; the default is both")
    parser.add_argument("--no-harness", action="store_true", help="leave lm-evaluation-harness out")
    parser.add_argument("--memory", action="store_true", help="say what memory a batch takes; no peers")
    options = parser.parse_args()
    found: dict[str, Any] = {"metric": "evaluate_speed", "shape": options.shape}
    found |= machine.this_machine(options.threads)
    try:
        if options.memory:
            found |= memory(options)
        else:
            wanted = [options.setting] if options.setting else SETTINGS
            found |= {setting: compared(setting, options) for setting in wanted}
    except ValueError as error:
        raise SystemExit(f"evaluate_speed: {error}") from None
    print(json.dumps({**found, "rounds": options.rounds}, ensure_ascii=False))


if __name__ == "__main__":
    main()
