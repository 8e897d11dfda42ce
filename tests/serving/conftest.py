"""A small vocabulary, and servers whose engine has no network: they start in a second or two."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that tests import tests.serving.running, and the fakes of the engine

from tests.serving.running import Server  # noqa: E402


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    """File of a small vocabulary that can write the fake engine's script and all forms."""
    from pangu_alpha.text.vocabulary import train_vocabulary
    from tests.serving.fake_server import SIZE, TEXTS

    path = tmp_path_factory.mktemp("vocabulary") / "vocab.model"
    train_vocabulary(TEXTS, path, SIZE)
    return path


@pytest.fixture(scope="session")
def facts(vocabulary):
    """The facts of a small model."""
    from pangu_alpha.serving.wire.tokens import ModelFacts
    from pangu_alpha.text.tokenizer import PanguTokenizer

    tokenizer = PanguTokenizer(vocabulary)
    return ModelFacts(tokenizer, tokenizer.vocab_size + 4, tokenizer.eot_id, 256, 4)


@pytest.fixture(scope="session")
def released_facts():
    """The facts of a model with the released vocabulary, where that has been fetched."""
    from pangu_alpha.serving.wire.tokens import ModelFacts
    from pangu_alpha.text.corpora import default_directory
    from pangu_alpha.text.tokenizer import PanguTokenizer

    path = Path(os.environ.get("PANGU_VOCAB") or default_directory() / "vocab.model")
    if not path.is_file():
        pytest.skip("no released vocabulary; `python -m pangu_alpha.cli.fetch vocab` gets it")
    return ModelFacts(PanguTokenizer(path), 40000, 9, 1024, 8)


@pytest.fixture
def start(tmp_path, vocabulary):
    """start(*options) starts a server, which ends with the test."""
    with ExitStack() as stack:
        yield lambda *options, wait=True: stack.enter_context(
            closing(Server(tmp_path, "--vocabulary", vocabulary, *options, wait=wait))
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory, vocabulary):
    """A server that says its script, for a whole file."""
    options = ("--vocabulary", vocabulary, "--delay", 0, "--slots", 4)
    with closing(Server(tmp_path_factory.mktemp("server"), *options)) as found:
        yield found


@pytest.fixture(scope="module")
def random_server(tmp_path_factory, vocabulary):
    """A server whose likeliest tokens are random ones, for a whole file."""
    folder = tmp_path_factory.mktemp("random")
    options = ("--vocabulary", vocabulary, "--delay", 0, "--random", "--slots", 4)
    with closing(Server(folder, *options)) as found:
        yield found
