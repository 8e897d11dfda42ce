"""The places where files of strangers come in, each with good files to damage and a look at what was lost.

A door is made with a folder for its good files. Called with a source of chance and a folder, it writes one
damaged file there and returns what gives it to the reader. That raises what a command would print as a
sentence, or LossError when the file was read and something of it is missing.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib.util
import io
import json
import lzma
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import numpy as np
import yaml
from mutations import mutated, mutated_json

from pangu_alpha.checkpoint.foreign.torch.huggingface import PORT
from pangu_alpha.checkpoint.moving.compare import damage
from pangu_alpha.checkpoint.moving.export import FORMS, ExportOptions, export
from pangu_alpha.checkpoint.native.format import MANIFEST, MARKER, Manifest, _marker, write_checkpoint
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.summary import summarize, summary_lines
from pangu_alpha.cli.predict import checked
from pangu_alpha.cluster.tables.build import build, hosts_by_rule, read_hosts
from pangu_alpha.cluster.tables.rank_table import read, to_text
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import load_train_config
from pangu_alpha.config.schema import read_yaml, to_mapping
from pangu_alpha.data.tokens import TokenJob, write_tokens
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.text.clean import CleanRules
from pangu_alpha.text.documents.read_options import SPLITS, ReadOptions
from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.text.vocabulary import train_vocabulary

TESTS = Path(__file__).parents[1] / "tests"
NOVEL = "却说曹操引军渡河，玄德曰：「操虽能用兵，不如 1,000 人之心。」次日 ABC 又战。\n\n时建安十三年冬。\n"
MODEL = ModelConfig(vocab_size=40, hidden_size=8, num_layers=3, num_heads=2, seq_length=8, dropout=0.0)

Case = Callable[[], None]


class LossError(Exception):
    """A file was read, and something of it is missing that was not counted."""


class Documents:
    """preprocess.py on a text, JSON lines, archive or parquet file."""

    def __init__(self, seeds: Path) -> None:
        lines = "".join(
            json.dumps(record, ensure_ascii=False) + "\n"
            for record in ({"text": NOVEL, "n": [1, {"a": None}]}, {"text": "玄德曰\u2028次日 😀"})
        ).encode()
        text = NOVEL.encode() * 3
        packed = ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress))
        self.files = {
            "a.txt": text,
            "a.jsonl": lines,
            "a.json": b"[" + lines.strip().replace(b"\n", b",") + b"]",
        }
        self.files |= {f"a.{kind}{end}": pack(content) for end, pack in packed
                       for kind, content in (("txt", text), ("jsonl", lines))}  # fmt: skip
        self.files["a.parquet"] = _parquet(["甲乙", "丙丁", None, NOVEL])
        self.vocabulary = _vocabulary(seeds)
        self.tokenizer = PanguTokenizer(self.vocabulary)

    def __call__(self, random: Random, folder: Path) -> Case:
        name = random.choice(list(self.files))
        (folder / name).write_bytes(mutated(self.files[name], random))
        options = ReadOptions(
            split=random.choice(SPLITS),
            invalid_utf8=random.choice(("replace", "skip", "error")),
            broken=random.choice(("error", "skip")),
        )
        clean = random.choice((None, CleanRules()))
        job = TokenJob(
            str(folder / name),
            folder / "ids",
            str(self.vocabulary),
            self.tokenizer.digest,
            "<eod>",
            options,
            clean,
        )
        return lambda: self.enter(job)

    def enter(self, job: TokenJob) -> None:
        for old in (job.target, job.receipt):
            old.unlink(missing_ok=True)
        made = write_tokens(job, lambda *_: None)
        ids = np.fromfile(job.target, np.uint16)
        unknown = int((ids == self.tokenizer.unk_id).sum())
        if (len(ids), unknown) != (made.tokens, made.unknown):
            raise LossError(f"{made.tokens}, {made.unknown} <unk> counted; {len(ids)}, {unknown} written")
        if made.characters.missing:
            raise LossError(f"characters do not add up: {made.characters}")
        if job.source.endswith(".txt") and job.read.split == "file":
            given = len(Path(job.source).read_bytes().decode("utf-8", "replace"))
            if made.characters.given != given:
                raise LossError(f"{given} characters in the file, {made.characters.given} counted")


class Vocabulary:
    """A vocab.model given to any command."""

    def __init__(self, seeds: Path) -> None:
        self.content = _vocabulary(seeds).read_bytes()

    def __call__(self, random: Random, folder: Path) -> Case:
        path = folder / "vocab.model"
        path.write_bytes(mutated(self.content, random))
        return lambda: self.enter(path)

    def enter(self, path: Path) -> None:
        tokenizer = PanguTokenizer(path)
        tokenizer.decode(tokenizer.encode("却说曹操引军, abc 123\n▅😀"))


class TrainedVocabulary:
    """The text a vocabulary is trained on."""

    def __init__(self, seeds: Path) -> None:
        del seeds

    def __call__(self, random: Random, folder: Path) -> Case:
        text = mutated(NOVEL.encode() * 5, random).decode("utf-8", "replace")
        path = folder / "trained.model"
        return lambda: self.enter(text, path)

    def enter(self, text: str, path: Path) -> None:
        train_vocabulary([text], path, 12 + len(set(text)))


class Configuration:
    """The YAML of a run."""

    content = b"""\
model: {base: tiny, hidden_size: 64, num_layers: 3}
data:
  train:
    text: &source {records: data/train, weight: 1.5}
    news: {<<: *source, weight: 2}
  validation: data/val   # held out
  vocabulary: v.model
run: {output: runs/x, steps: 1000, batch_size: 4, seed: 1, checkpoint: {keep_last: 3, every: 100}}
optim: {learning_rate: 1.0e-3, warmup_steps: 10, beta2: 0.95}
parallel: {dp: 2, tp: 2, pp: 1, micro_batches: 2, recompute: [full, none, none]}
"""

    def __init__(self, seeds: Path) -> None:
        del seeds

    def __call__(self, random: Random, folder: Path) -> Case:
        path = folder / "run.yaml"
        path.write_bytes(mutated(self.content, random))
        return lambda: self.enter(path)

    def enter(self, path: Path) -> None:
        load_train_config(str(path))
        text = path.read_text("utf-8")
        if "*" not in text and "<<" not in text and _keys_written(text) != _keys(read_yaml(path)):
            raise LossError("a key that is written is not read")


class Overrides:
    """Words key=value of a command line."""

    words = (
        "optim.learning_rate=1e-3",
        "parallel.dp=2",
        "run.checkpoint.keep_last=3",
        "data.train.text.weight=2",
        "model={base: tiny, num_layers: 3}",
        "run.output=runs/x",
    )

    def __init__(self, seeds: Path) -> None:
        self.config = seeds / "run.yaml"
        self.config.write_text(
            "model: tiny\ndata: {train: {text: {records: d}}}\nrun: {output: x, steps: 5}\n"
        )

    def __call__(self, random: Random, folder: Path) -> Case:
        word = mutated(random.choice(self.words).encode(), random).decode("utf-8", "surrogateescape")
        return lambda: load_train_config(str(self.config), [word.replace("\0", "")])


class RankTable:
    """An HCCL rank table."""

    def __init__(self, seeds: Path) -> None:
        del seeds
        hosts = hosts_by_rule(1, "10.0.0.{server+1}", range(8))
        self.documents = [json.loads(to_text(build(hosts).to_document()))]
        files = sorted((TESTS.parent / "rank_tables").glob("*p*.json"))
        self.documents += [json.loads(file.read_text("utf-8")) for file in files]

    def __call__(self, random: Random, folder: Path) -> Case:
        path = folder / "table.json"
        path.write_bytes(mutated_json(random.choice(self.documents), random))
        chip = random.choice(("910A", "910B", "910C", None))
        return lambda: self.enter(path, chip)

    def enter(self, path: Path, chip: str | None) -> None:
        table = read(path, Mesh.of(ParallelPlan(dp=4, tp=2)), chip)
        given = json.loads(path.read_text("utf-8"))
        if sum(len(server["device"]) for server in given["server_list"]) != sum(
            len(server.devices) for server in table.servers
        ):
            raise LossError("a device that is written is not read")


class _OneOf:
    """A door whose good files are few and fixed."""

    files: Mapping[str, bytes]

    def __init__(self, seeds: Path) -> None:
        del seeds

    def __call__(self, random: Random, folder: Path) -> Case:
        name = random.choice(list(self.files))
        path = folder / name
        path.write_bytes(mutated(self.files[name], random))
        return lambda: self.enter(path)

    def enter(self, path: Path) -> None:
        """Gives the file to its reader."""
        raise NotImplementedError


class Hosts(_OneOf):
    """A hosts file of rank_table.py build."""

    files = {
        "hosts.txt": b"# a cluster\n10.0.0.1 0-7 192.168.1.1,192.168.1.2,192.168.1.3,192.168.1.4,192.168.1.5,"
        b"192.168.1.6,192.168.1.7,192.168.1.8\nnode2 0-3,4-7\nnode3\n",
        "hosts.yaml": b"hosts:\n  - {server: 10.0.0.1, devices: 0-7}\n"
        b"  - {server: 10.0.0.2, devices: [0, 1]}\n",
    }

    def enter(self, path: Path) -> None:
        hosts = read_hosts(path)
        if path.suffix == ".txt":
            lines = [line for line in path.read_text("utf-8").split("\n") if line.split("#")[0].split()]
            if len(hosts) < len(lines):
                raise LossError(f"{len(lines)} lines, {len(hosts)} hosts")


class Prompts(_OneOf):
    """A prompt file of predict.py."""

    files = {
        "prompts.txt": "中国的首都是\n\n却说曹操\n".encode(),
        "prompts.jsonl": '{"prompt": "中国的首都是"}\n{"prompt": "却说\\n曹操", "n": [1]}\n'.encode(),
    }

    def enter(self, path: Path) -> None:
        _, prompts, _ = checked(["--checkpoint", "none", "--prompt-file", str(path)])
        text = path.read_text("utf-8-sig")
        lines = sum(1 for line in text.split("\n") if line.strip())
        if len(prompts) != lines:
            raise LossError(f"{lines} lines, {len(prompts)} prompts")


class Checkpoints:
    """A checkpoint of any form, one of its files damaged."""

    def __init__(self, seeds: Path) -> None:
        random = np.random.default_rng(0)
        shapes = parameter_shapes(MODEL)
        arrays = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        own = seeds / "step_00000012"
        write_checkpoint(
            own, {"model": arrays}, Manifest(12, 0, {"model": to_mapping(MODEL)}, kind="weights")
        )
        self.forms = {"own": own}
        source = open_source(own)
        ends = {"megatron": ".safetensors", "ckpt": ".ckpt"}
        with contextlib.redirect_stderr(io.StringIO()):
            for form in sorted(set(FORMS) - {"released"}):  # 512 slices want a larger model
                self.forms[form] = seeds / (form + ends.get(form, ""))
                plan = ParallelPlan(dp=2, tp=2) if form == "mindspore" else None
                export(source, self.forms[form], form, ExportOptions(plan=plan))
        self.forms["torch"] = seeds / "torch"
        self._write_torch(self.forms["torch"] / "pytorch_model.bin", arrays)
        shutil.copyfile(self.forms["huggingface"] / "config.json", self.forms["torch"] / "config.json")
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}

    @staticmethod
    def _write_torch(path: Path, arrays: dict[str, np.ndarray]) -> None:
        """As torch.save does, by the tests' writer, which needs no torch."""
        spec = importlib.util.spec_from_file_location("torch_writer", TESTS / "checkpoint" / "conftest.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        names = PORT.names(MODEL.num_layers)
        module._write(path, {port: arrays[own] for own, port in names.items()})

    def __call__(self, random: Random, folder: Path) -> Case:
        form = random.choice(list(self.forms))
        seed = self.forms[form]
        path = folder / seed.name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        if seed.is_file():
            shutil.copyfile(seed, path)
            victim = path
        else:
            shutil.copytree(seed, path)
            victim = random.choice(sorted(file for file in path.rglob("*") if file.is_file()))
        victim.write_bytes(_damaged(victim, random))
        if victim.name == MANIFEST and random.random() < 0.8:
            (path / MARKER).write_bytes(_marker(victim.read_bytes()))
        model = MODEL if random.random() < 0.5 else None
        return lambda: self.enter(path, model)

    def enter(self, path: Path, model: ModelConfig | None) -> None:
        source = open_source(path, OpenOptions(model=model))
        for line in summary_lines(summarize(source), True):
            assert isinstance(line, str)
        broken = list(damage(source))
        found = {name: tuple(stored.shape) for name, stored in source.tensors["model"].items()}
        if not broken and found != self.shapes:
            missing = sorted(self.shapes.items() - found.items())
            raise LossError(
                f"read without {len(missing)} of {len(self.shapes)} tensors, such as {missing[:1]}"
            )


DOORS: dict[str, Callable[[Path], Callable[[Random, Path], Case]]] = {
    "documents": Documents,
    "vocabulary": Vocabulary,
    "training a vocabulary": TrainedVocabulary,
    "config": Configuration,
    "overrides": Overrides,
    "rank table": RankTable,
    "hosts": Hosts,
    "prompts": Prompts,
    "checkpoints": Checkpoints,
}


def _vocabulary(folder: Path) -> Path:
    path = folder / "vocab.model"
    train_vocabulary([NOVEL] * 20, path, 54)
    return path


def _parquet(texts: list[str | None]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue()


def _damaged(file: Path, random: Random) -> bytes:
    """A damaged file: JSON and the header of safetensors as values, too."""
    content = file.read_bytes()
    if file.suffix == ".json":
        return mutated_json(json.loads(content), random)
    if file.suffix == ".safetensors" and random.random() < 0.7:
        length = int.from_bytes(content[:8], "little")
        header = mutated_json(json.loads(content[8 : 8 + length]), random)
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    return mutated(content, random)


def _keys_written(text: str) -> int:
    """Keys of all mappings of a YAML text, doubles included."""
    return sum(len(node.value) for node in _nodes(yaml.compose(text)) if isinstance(node, yaml.MappingNode))


def _nodes(node: yaml.Node | None) -> Iterator[yaml.Node]:
    if node is None:
        return
    yield node
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    for child in children:
        for each in child if isinstance(child, tuple) else (child,):
            yield from _nodes(each)


def _keys(value: object) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0
