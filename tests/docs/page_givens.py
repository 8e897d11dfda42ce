"""What the readers of a page have before they begin, made small from seeded characters."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from page_folder import Folder

Given = Callable[[Folder], None]
_CHARACTERS = "天下大势分久必合曹操玄德孔明关羽张飞中国的首都是却说话次日军马人不之一"
_RUN = """\
model: {vocab_size: 120, hidden_size: 32, num_layers: 2, num_heads: 4, seq_length: 32}
data:
  train: {text: {records: data/train}}
  validation: data/validation
  vocabulary: data/vocab.model
run: {output: OUTPUT, steps: 4, batch_size: 2, tensorboard: false, peak_tflops: 0.1}
"""
_LOGGED = """\
model: 350m
data: {{train: {{text: {{records: data/train}}}}}}
run: {{output: {where}, steps: 30, batch_size: 1, device: {device}}}
parallel: {plan}
"""


def sentences(seed: int, count: int) -> list[str]:
    """Sentences of seeded characters, the same in every process."""
    rng = random.Random(seed)
    return ["".join(rng.choices(_CHARACTERS, k=rng.randrange(8, 40))) + "。" for _ in range(count)]


def makes(*names: str) -> Callable[[Given], Given]:
    """Notes which files and folders of a scratch folder a function makes."""

    def note(make: Given) -> Given:
        make.makes = names
        return make

    return note


@makes("text", "heldout")
def text(folder: Folder) -> None:
    """`text/` to train on and `heldout/` to validate with."""
    for name, seed, files in (("text", 1, 6), ("heldout", 2, 2)):
        for at in range(files):
            folder.write(f"{name}/{at}.txt", "\n".join(sentences(seed * 100 + at, 120)) + "\n")


@makes("data/sanguo.jsonl")
def novel(folder: Folder) -> None:
    """`data/sanguo.jsonl`, chapters as the novel's are."""
    chapters = [json.dumps({"text": "".join(sentences(at, 60))}, ensure_ascii=False) for at in range(40)]
    folder.write("data/sanguo.jsonl", "\n".join(chapters) + "\n")


@makes("runs/0", "runs/1", "runs/mine")
def logs(folder: Folder) -> None:
    """The logs of two runs on a cluster and of one on a CPU, as if they had been trained."""
    for name, plan, device, rate in (
        ("0", "{dp: 8}", "Ascend", 60000.0),
        ("1", "{dp: 4, tp: 2}", "Ascend", 45000.0),
        ("mine", "{}", "CPU", 40.0),
    ):
        where = f"runs/{name}"
        folder.write(f"{where}/config.yaml", _LOGGED.format(where=where, plan=plan, device=device))
        rows = 8 if name == "0" else 4 if name == "1" else 1
        lines = [
            json.dumps({"step": step, "samples": step * rows, "loss": 8.0, "tokens_per_s": rate + step % 3})
            for step in range(1, 31)
        ]
        folder.write(f"{where}/metrics.jsonl", "\n".join(lines) + "\n")


@makes("data/vocab.model")
def vocabulary(folder: Folder) -> None:
    """`data/vocab.model`, of the texts."""
    from pangu_alpha.text.vocabulary import train_vocabulary

    folder.path.joinpath("data").mkdir(exist_ok=True)
    train_vocabulary(sentences(1, 400), str(folder.path / "data/vocab.model"), 120)


@makes("text", "heldout", "data/vocab.model", "data/train", "data/validation")
def records(folder: Folder) -> None:
    """`data/train` and `data/validation`, windows of 32."""
    text(folder)
    vocabulary(folder)
    for name, source in (("train", "text"), ("validation", "heldout")):
        _must(
            folder,
            f"python src/preprocess.py --input '{source}/*.txt' --tokenizer data/vocab.model"
            f" --output data/{name} --seq-length 32 --pad-last --workers 1",
        )


def run_at(output: str) -> Given:
    """A run of four steps in `output`."""

    @makes(output, *records.makes)
    def make(folder: Folder) -> None:
        if not folder.has("data/train"):
            records(folder)
        folder.write("given.yaml", _RUN.replace("OUTPUT", output))
        _must(folder, "python src/train.py --config given.yaml run.device=CPU")

    return make


def _must(folder: Folder, command: str) -> None:
    done = folder.run(command, 300)
    assert done.code == 0, done.text
