"""What several parts' tests share: the oracle's arrays and the device."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

# MindSpore 2.9 ends the process ("Descriptors cannot be created directly") if another protobuf came first.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

FIXTURES = Path(__file__).parent / "fixtures"
# Folders of the slowest tests: those that take the cores, and those that wait for processes and sockets.
COMPUTING = ("proof", "corpus", "training", "inference", "model")
WAITING = ("run_scripts", "serving")
# What starts processes or compiles networks: the tests of these folders, those with one of these fixtures (a
# device, an installed wheel, files that the pages' commands make), and those marked slow one by one.
SLOW_FOLDERS = ("run_scripts", "proof", "integrations")
SLOW_FIXTURES = {"cpu", "installed", "shelf"}
FAST_SECONDS = 10  # of a test that is not slow, on a machine that has other work as well


def pytest_addoption(parser):
    """What the command line of the tests knows besides pytest's own options."""
    parser.addoption("--long", action="store_true", help="run the tests marked long as well")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One process more than there are cores: a third of the time, tests wait for processes and sockets."""
    return len(os.sched_getaffinity(0)) + 1


def part_of(item):
    """The part of the package that a test is about: its first folder."""
    return item.path.relative_to(FIXTURES.parent).parts[0]


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(config, items):
    """Marks what is slow, and puts it first: a process takes whole files, and none shall begin one of them at
    the end."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)
            if not config.getoption("--long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with --long -m long"))
        elif part_of(item) in SLOW_FOLDERS or SLOW_FIXTURES & {*item.fixturenames}:
            item.add_marker(pytest.mark.slow)
    places = places_of({item.path: part_of(item) for item in items})
    items.sort(key=lambda item: places[item.path])


def places_of(parts):
    """Where the tests of each file come, by file: two files that compute beside one that waits, then others.

    Args:
        parts: Folder of each file.
    """
    places = dict.fromkeys(parts, math.inf)
    for folders, at_once in ((COMPUTING, 2), (WAITING, 1)):
        files = [file for folder in folders for file in parts if parts[file] == folder]
        places |= {file: number // at_once for number, file in enumerate(files)}
    return places


def pytest_terminal_summary(terminalreporter, config):
    """Names the tests that the fast set should not hold."""
    if "not slow" in config.option.markexpr:
        for report in terminalreporter.getreports("passed"):
            if report.duration > FAST_SECONDS:
                terminalreporter.line(f"{report.nodeid}: {report.duration:.0f} s: @pytest.mark.slow?")


@pytest.fixture
def hang_up():
    """SIGHUP ends a process, whether or not the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def oracle():
    """Arrays of the official code's forward and backward passes, by name."""
    return dict(np.load(FIXTURES / "oracle_tiny.npz"))


@pytest.fixture(scope="session")
def oracle_training():
    """Arrays of six optimizer steps of the official code, by name."""
    return dict(np.load(FIXTURES / "oracle_train_6_steps.npz"))


@pytest.fixture(scope="session")
def cpu():
    """Puts MindSpore on the CPU in graph mode; for every test that runs a cell."""
    from pangu_alpha.parallel.context import use_device

    return use_device("CPU")


@pytest.fixture(scope="session")
def save_run(cpu):
    """save_run(folder, vocabulary, **sizes): what a training run leaves, with weights of some size."""
    return _save_run


def _save_run(folder, vocabulary, **sizes):
    from mindspore import Tensor

    from pangu_alpha.checkpoint.native.format import Manifest
    from pangu_alpha.checkpoint.native.store import CheckpointStore
    from pangu_alpha.config.model import ModelConfig
    from pangu_alpha.config.schema import to_mapping
    from pangu_alpha.model.pangu import PanguAlpha
    from pangu_alpha.text.tokenizer import PanguTokenizer

    tokenizer = PanguTokenizer(vocabulary)
    model = PanguAlpha(ModelConfig(**{"vocab_size": tokenizer.vocab_size, **sizes}), seed=3)
    rng = np.random.default_rng(5)
    for name, parameter in model.parameters_and_names():
        noise = rng.standard_normal(parameter.shape).astype(np.float32) * 0.2
        parameter.set_data(Tensor(noise + name.endswith("gamma")))
    shutil.copy(vocabulary, folder / "vocab.model")
    arrays = {name: value.asnumpy() for name, value in model.parameters_and_names()}
    manifest = Manifest(1, 0, {"model": to_mapping(model.config)}, tokenizer.digest)
    CheckpointStore(folder / "checkpoints", keep_last=1).save({"model": arrays}, manifest)
    return folder


@pytest.fixture(scope="session")
def crowd():
    """Ranks as threads: `crowd(size).run(function)` are the results of function(world) of each rank."""
    return Crowd


class Crowd:
    """So many ranks."""

    def __init__(self, size):
        self.size = size
        self.slots = [None] * size

    def run(self, function):
        """Results of function(group) of every rank; the first error, if there are any."""
        self.barrier = threading.Barrier(self.size)  # an error breaks it for ever

        def work(rank):
            try:
                return function(Member(self, rank))
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.size) as pool:
            tasks = [pool.submit(work, rank) for rank in range(self.size)]
        errors = [task.exception() for task in tasks if task.exception()]
        errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
        if errors:
            raise errors[0]
        return [task.result() for task in tasks]


class Member:
    """One of them, as parallel.world.World."""

    def __init__(self, crowd, rank):
        self.crowd, self.rank, self.size = crowd, rank, crowd.size

    def gather(self, array):
        self.crowd.slots[self.rank] = array
        self.crowd.barrier.wait(20)
        gathered = np.stack(self.crowd.slots)
        self.crowd.barrier.wait(20)
        return gathered
