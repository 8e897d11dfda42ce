"""Servers under measurement, each started by the worker that is its client, and the network that all serve.

ours: `src/serve.py` with a checkpoint of random weights.
FastAPI: what one writes in an afternoon, `generate` of transformers behind a lock, GPT-2 of the same shape.
llama.cpp: its `llama-server` with GPT-2 of the same shape in a GGUF file, if a path of that program is given.
"""

from __future__ import annotations

import atexit
import dataclasses
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.zoo import load_model_config

ROOT = Path(__file__).parents[1]
PIECES, CONTEXT, SCENARIO, PREFIX = 500, 512, "keeper", 448
END_FILE, GGUF_FILE = "end", "gpt2.gguf"  # the id that ends documents; the network for llama.cpp
START_WITHIN = 600.0  # seconds


def shape(name: str) -> ModelConfig:
    """Of the network that all programs have, with 40,000 ids."""
    return dataclasses.replace(load_model_config(name), vocab_size=40000, seq_length=1024, dropout=0.0)


def save(folder: str, name: str, form: str) -> None:
    """Writes the network, as a "checkpoint" or as "gguf", in a process that ends with its memory."""
    subprocess.run([sys.executable, __file__, form, name, folder], check=True)


def save_checkpoint(name: str, folder: Path) -> None:
    """A run's folder with random weights, its vocabulary, and a scenario of PREFIX tokens."""
    from pangu_alpha.checkpoint.native.format import Manifest
    from pangu_alpha.checkpoint.native.store import CheckpointStore
    from pangu_alpha.config.schema import to_mapping
    from pangu_alpha.model.pangu import PanguAlpha
    from pangu_alpha.text.vocabulary import train_vocabulary

    random = np.random.default_rng(0)
    characters = np.array([chr(0x4E00 + n) for n in range(PIECES // 2)])
    weights = 1 / np.arange(1, len(characters) + 1)
    texts = ("".join(random.choice(characters, 400, p=weights / weights.sum())) for _ in range(300))
    rows = [f"{text}，。：以下是与的对话我小馆" for text in texts]
    tokenizer = train_vocabulary(rows, folder / "vocab.model", PIECES)
    (folder / END_FILE).write_text(str(tokenizer.eot_id))
    (folder / "scenarios").mkdir()
    write_scenario(folder / "scenarios", tokenizer.encode, "".join(rows))
    model = PanguAlpha(shape(name))
    arrays = {key: value.asnumpy() for key, value in model.parameters_and_names()}
    manifest = Manifest(1, 0, {"model": to_mapping(model.config)}, tokenizer.digest)
    CheckpointStore(folder / "checkpoints", keep_last=1).save({"model": arrays}, manifest)


def write_scenario(folder: Path, encode: Any, text: str) -> None:
    """A conversation whose head has PREFIX tokens, or the few more that the last character brings."""
    from pangu_alpha.serving.scenarios import load_scenarios

    for length in range(PREFIX // 2, len(text)):
        (folder / f"{SCENARIO}.yaml").write_text(
            "task: persona_dialogue\ntitle: {en: Keeper, zh: 馆}\ndescription: {en: Long., zh: 长。}\n"
            f"fields: {{name: 小馆, persona: {text[:length]}}}\n",
            "utf-8",
        )
        if len(encode(load_scenarios(folder)[SCENARIO].head())) >= PREFIX:
            return
    raise AssertionError("the text is too short")


class Server:
    """A process that serves on a port of 127.0.0.1, and ends with this one.

    Args:
        words: Its command line; {port} stands for the port.
        ready: A path that answers 200 when it is ready.

    Raises:
        RuntimeError: It ended, or was not ready in time.
    """

    def __init__(self, words: Sequence[str], ready: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        filled = [word.replace("{port}", str(self.port)) for word in words]
        self.process = subprocess.Popen(filled, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        atexit.register(self.close)
        deadline = time.monotonic() + START_WITHIN
        while not self._answers(ready):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{words[0]} does not serve; its exit code is {self.process.returncode}")
            time.sleep(0.1)

    def _answers(self, path: str) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False

    def close(self) -> None:
        """Ends it."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def start_ours(folder: str, slots: int) -> Server:
    """Our server, with a context of CONTEXT and one scenario."""
    words = ["--checkpoint", folder, "--slots", str(slots), "--context", str(CONTEXT), "--device", "CPU"]
    words += ["--scenarios", f"{folder}/scenarios", "--port", "{port}"]
    return Server([sys.executable, str(ROOT / "src/serve.py"), *words], "/health/ready")


def start_fastapi(name: str) -> Server:
    """The plain server of GPT-2."""
    return Server([sys.executable, __file__, "gpt2", name, "{port}"], "/health")


def start_llama(program: str, folder: str, slots: int) -> Server:
    """llama.cpp's server, with as many slots and tokens in each."""
    threads = os.environ["OMP_NUM_THREADS"]
    words = ["-m", f"{folder}/{GGUF_FILE}", "-np", str(slots), "-c", str(slots * CONTEXT)]
    words += ["-t", threads, "-tb", threads, "--host", "127.0.0.1", "--port", "{port}"]
    words += ["--log-verbosity", "2"]  # warnings; it writes several lines about each request otherwise
    return Server([program, *words], "/health")


def save_gguf(name: str, folder: Path) -> None:
    """GPT-2 of the shape with random weights in float32, and a vocabulary that gives each id a text."""
    import gguf

    size, random = shape(name), np.random.default_rng(0)
    hidden, inner = size.hidden_size, 4 * size.hidden_size
    writer = gguf.GGUFWriter(str(folder / GGUF_FILE), "gpt2")
    writer.add_context_length(size.seq_length)
    writer.add_embedding_length(hidden)
    writer.add_block_count(size.num_layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(size.num_heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    write_vocabulary(writer, size.vocab_size)

    def add(tensor: str, *lengths: int) -> None:
        noise = random.standard_normal(lengths, np.float32) * np.float32(0.02)
        writer.add_tensor(tensor, noise + np.float32(tensor.endswith("norm.weight")))

    add("token_embd.weight", size.vocab_size, hidden)
    add("position_embd.weight", size.seq_length, hidden)
    for layer in range(size.num_layers):
        for part, *lengths in (
            ("attn_norm", hidden),
            ("attn_qkv", 3 * hidden, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_norm", hidden),
            ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner),
        ):
            add(f"blk.{layer}.{part}.weight", *lengths)
            add(f"blk.{layer}.{part}.bias", lengths[0])
    add("output_norm.weight", hidden)
    add("output_norm.bias", hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_vocabulary(writer: Any, count: int) -> None:
    """A SentencePiece vocabulary: the special ids, all bytes, then a character for each further id."""
    from gguf import TokenType

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    # From the first Chinese character on; past the planes for surrogates, which are no characters.
    characters = itertools.chain(range(0x3400, 0xD800), range(0xE000, 0x20000))
    tokens += [chr(number) for number in itertools.islice(characters, count - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(place) for place in range(count)])
    writer.add_token_types(types + [TokenType.NORMAL] * (count - len(types)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def serve_gpt2(name: str, port: int) -> None:
    """FastAPI on uvicorn; one request computes at a time, in a thread of FastAPI's pool."""
    import threading

    import fastapi
    import torch
    import uvicorn
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    size = shape(name)
    config = GPT2Config(
        n_layer=size.num_layers,
        n_embd=size.hidden_size,
        n_head=size.num_heads,
        vocab_size=size.vocab_size,
        attn_implementation="sdpa",
    )
    model, lock, app = GPT2LMHeadModel(config).eval(), threading.Lock(), fastapi.FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {}

    @app.post("/v1/completions")
    def completions(body: dict[str, Any]) -> dict[str, Any]:
        prompt, new = torch.tensor([body["prompt"]]), body["max_tokens"]
        words = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        with lock, torch.inference_mode():
            found = model.generate(prompt, **words)[0, prompt.shape[1] :].tolist()
        return {"choices": [{"index": 0, "ids": found}], "usage": {"completion_tokens": len(found)}}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def main() -> None:
    """Writes the network in a form, or serves GPT-2."""
    what, name, where = sys.argv[1:]
    if what == "gpt2":
        serve_gpt2(name, int(where))
    elif what == "gguf":
        save_gguf(name, Path(where))
    else:
        save_checkpoint(name, Path(where))


if __name__ == "__main__":
    main()
