"""What the readers of a page have before they begin, made small from seeded characters."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable

from page_commands import ROOT
from page_folder import Folder
from page_reader import steps

Given = Callable[[Folder], None]
_CHARACTERS = "天下大势分久必合曹操玄德孔明关羽张飞中国的首都是却说话次日军马人不之一"
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


@makes("results/base", "results/tuned")
def results(folder: Folder) -> None:
    """Results of two models on four made-up questions."""
    from pangu_alpha.evaluation.metrics import metric
    from pangu_alpha.evaluation.results.files import Run, write_results
    from pangu_alpha.evaluation.results.result import Sample, TaskResult, item_sums, measured

    for name, chosen in (("base", [0, 1, 1, 0]), ("tuned", [0, 0, 1, 0])):
        figures = metric("accuracy").figures(predictions=chosen, references=[0, 0, 1, 1])
        result = TaskResult("ocnli", "OCNLI", "dev.json", "paper", "exact", None, 0, 0, 4, measured(figures))
        rows = [
            Sample(at, str(at), {"text": "甲"}, 0, [("甲", "对")], [(-1.0, True)], chosen[at], sums)
            for at, sums in enumerate(item_sums(figures))
        ]
        write_results(folder.path / "results" / name, Run(name, ""), [result], {result.name: rows})


def shown_in(page: str, name: str) -> Given:
    """A file that another page shows, as it stands there."""

    @makes(name)
    def make(folder: Folder) -> None:
        text = (ROOT / page).read_text("utf-8")
        folder.write(name, next(step.text for step in steps(text) if step.name == name))

    return make


@makes("run.yaml", "runs/mine", "text", "heldout", "data/vocab.model", "data/train", "data/validation")
def readme(folder: Folder) -> None:
    """What README's steps leave behind, its run of three steps; made once, then copied."""
    shelf = folder.shelf / "readme"
    if not shelf.exists():
        maker = Folder(folder.shelf / "maker", folder.shelf)
        _make_readme(maker)
        shelf.mkdir()
        for name in ("run.yaml", "runs", "text", "heldout", "data"):
            (maker.path / name).rename(shelf / name)
    shutil.copytree(shelf, folder.path, dirs_exist_ok=True)


def _make_readme(folder: Folder) -> None:
    text(folder)
    vocabulary(folder)
    for name, source in (("train", "text"), ("validation", "heldout")):
        _must(
            folder,
            f"python src/preprocess.py --input '{source}/*.txt' --vocabulary data/vocab.model"
            f" --output data/{name} --seq-length 256 --pad-last --workers 1",
        )
    shown_in("README.md", "run.yaml")(folder)
    words = "run.device=CPU run.steps=3 run.batch_size=2 run.peak_tflops=0.1 run.evaluate_batches=1"
    _must(folder, f"python src/train.py --config run.yaml {words}")


def _must(folder: Folder, command: str) -> None:
    done = folder.run(command, 300)
    assert done.code == 0, done.text


@makes("node1/hccn.conf", "node2/hccn.conf", "modelarts.json", "node1.json", "node2.json")
def addresses(folder: Folder) -> None:
    """What the operator of two servers has: their hccn.conf, and tables of other kinds."""
    for server in (1, 2):
        lines = [f"address_{device}=10.{device % 4 + 1}.{server}.{device + 1}" for device in range(8)]
        folder.write(f"node{server}/hccn.conf", "\n".join(lines) + "\n")
        words = f"--hccn 10.0.0.{server}=node{server}/hccn.conf --first-rank {8 * server - 8}"
        _must(folder, f"python src/rank_table.py build {words} --output node{server}.json")
    listed = [
        {
            "pod_name": f"pod{server}",
            "server_id": f"10.0.0.{server}",
            "devices": [
                {"device_id": str(device), "device_ip": f"10.2.{server}.{device}"} for device in range(8)
            ],
        }
        for server in (1, 2)
    ]
    group = {
        "group_name": "worker", "device_count": "16", "instance_count": "2", "instance_list": listed
    }  # fmt: skip
    document = {"status": "completed", "group_count": "1", "group_list": [group]}
    folder.write("modelarts.json", json.dumps(document))
