"""Controls: what ranks measure passes on CPU, and does not with a planted fault of the check's kind."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import itertools
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from records_of import BY_NAME, failed

from pangu_alpha.checkpoint.foreign.mindspore.export import export_released
from pangu_alpha.checkpoint.foreign.mindspore.released import released_names
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.cli.check_cluster import rank
from pangu_alpha.cli.check_cluster.orders import Leader
from pangu_alpha.cli.check_cluster.running import Machines, Runner
from pangu_alpha.cluster_check.measure import environment
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.records import read_result
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.files.writing import write_json
from pangu_alpha.launcher.commands import COMMANDS, Job, plain_nodes
from pangu_alpha.processes.belonging import MARK, Launcher
from pangu_alpha.processes.signals import Signals
from pangu_alpha.text.vocabulary import train_vocabulary

FAULTY = Path(__file__).with_name("faulty_rank.py")
FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def measure(tmp_path):
    """Measures a check in this process, as its one rank, and returns what does not pass."""
    setup = Setup("CPU", ((0,),), ((0,),), oracle=str(FIXTURES))
    known = {}
    runs = itertools.count()

    def measured(name, setup=setup, **more):
        whole = (
            tmp_path / f"run_{next(runs)}"
        )  # a training run would find itself done in the folder of another
        module = importlib.import_module(BY_NAME[name].module)
        for each in BY_NAME[name].measurements:
            folder = whole / each.name
            folder.mkdir(parents=True)
            if each.name not in ("plain", "cpu") or each.name not in known:  # references have no fault
                place = Place(each.name, "CPU" if each.device else "", 0, tmp_path, folder, setup)
                known[each.name] = [module.measure(place) | more.get(each.name, {})]
        return failed(name, known)

    return measured


def test_a_full_disk(measure, monkeypatch):
    assert not measure("environment")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(environment, "write_all", full)
    (found,) = measure("environment")
    assert found.value.startswith("rank 0 cannot write: No space left on device")


def with_operators(monkeypatch, name, **changes):
    """Makes a check's module use other operators where it does not ask for the plain ones."""
    module = importlib.import_module(BY_NAME[name].module)
    real = module.operators_for

    def planted(config, device=None):
        found = real(config, device)
        return found if device == "plain" else dataclasses.replace(found, **changes)

    monkeypatch.setattr(module, "operators_for", planted)


@pytest.mark.long
def test_a_perturbed_operator(cpu, measure, monkeypatch):
    from pangu_alpha.cluster_check.measure import operators
    from pangu_alpha.model.operators import plain

    monkeypatch.setattr(operators, "SHAPES_OF", {"CPU": ("small",)})
    assert not measure("operators")
    with_operators(monkeypatch, "operators", activation=plain.FastGelu)
    found = [each.what for each in measure("operators")]
    kinds = [f"gelu, {dtype}: {kind}" for dtype in ("float16", "float32") for kind in ("output", "gradient")]
    assert found == [f"{each} against the plain operator" for each in kinds]


@pytest.mark.long
def test_dropout_off(cpu, measure, monkeypatch):
    from pangu_alpha.model.operators import dropout

    assert not measure("dropout")
    off = lambda rate, salt: dropout.Dropout(0.0, salt)  # noqa: E731
    with_operators(monkeypatch, "dropout", dropout=off)
    assert [each.what.split()[0] for each in measure("dropout")] == ["share", "factors", "largest", "masks,"]


@pytest.mark.long
def test_a_swapped_slice(cpu, measure, monkeypatch):
    from pangu_alpha.cluster_check.measure.models import network

    assert not measure("network")
    load = network.load_released

    def swapped(model, arrays):
        load(model, arrays)
        weight = model.blocks[1].attention.query.weight
        halves = np.split(weight.asnumpy(), 2)
        weight.set_data(Tensor(np.concatenate(halves[::-1])))

    monkeypatch.setattr(network, "load_released", swapped)
    found = [each.what for each in measure("network")]
    assert len([what for what in found if what.startswith("float32")]) == 5


@pytest.mark.long
def test_a_decoder_that_does_not_end_documents(cpu, measure, monkeypatch):
    from pangu_alpha.cluster_check.measure.models import decoding

    assert not measure("decoding")
    real = decoding.Decoder
    monkeypatch.setattr(decoding, "Decoder", lambda model, end, rows: real(model, end + 1, rows=rows))
    assert len(measure("decoding")) == 2


@pytest.fixture
def fake_release(tmp_path):
    """A tiny release with the oracle's weights, its vocabulary beside it, and a text."""
    arrays = dict(np.load(FIXTURES / "oracle_tiny.npz"))
    config = ModelConfig(1000, 64, 3, 4, seq_length=32)
    weights = {
        name: np.ascontiguousarray(array.T if flip else array)
        for name, (official, flip) in released_names(config).items()
        for array in [arrays[f"plain/param/{official}"]]
    }
    ours, folder, text = tmp_path / "step_00000001", tmp_path / "released", tmp_path / "text.txt"
    write_checkpoint(ours, {"model": weights}, Manifest(1, 0, {"model": to_mapping(config)}))
    export_released(open_source(ours), folder, dp=2, mp=2, limits=Limits(workers=1, progress=False))
    text.write_text("天下大势，分久必合，合久必分。周末七国分争，并入于秦。" * 4, "utf-8")
    train_vocabulary([text.read_text("utf-8")] * 20, str(folder / "vocab.model"), 31)
    return config, Setup("CPU", ((0,),), ((0,),), released=str(folder), text=str(text))


@pytest.mark.long
def test_a_released_network_with_two_weights_swapped(cpu, measure, fake_release, monkeypatch):
    from pangu_alpha.cluster_check.measure.models import released

    config, setup = fake_release
    monkeypatch.setattr(released, "OPTIONS", OpenOptions(model=config))
    assert not measure("released", setup)
    load = released.load_weights

    def swapped(model, source):
        load(model, source)
        one, other = model.blocks[1].attention.query.weight, model.blocks[1].attention.value.weight
        values = one.asnumpy(), other.asnumpy()
        one.set_data(Tensor(values[1]))
        other.set_data(Tensor(values[0]))

    monkeypatch.setattr(released, "load_weights", swapped)
    found = [each.what for each in measure("released", setup)]
    kinds = ("perplexity against", "-log p of a token against", "-log p of the prompts' answers against")
    for dtype in ("float16", "float32"):
        assert [what for what in found if what.startswith(dtype)] == [
            what for kind in kinds for what in found if what.startswith(f"{dtype}: {kind}")
        ]
        assert sum(what.startswith(dtype) for what in found) == 3


@pytest.mark.long
def test_a_device_that_trains_otherwise(cpu, measure, monkeypatch):
    from pangu_alpha.cluster_check.measure.runs import training

    assert not measure("training")
    real = training.loaded
    monkeypatch.setattr(training, "loaded", lambda path: real(path, "optim.weight_decay=0.5"))
    monkeypatch.setattr(training, "_killed_and_resumed", lambda path, output: {})  # trained as a whole
    (found,) = measure("training", killed={"killed_after": 30, "saved": 20})
    assert "against the CPU's" in found.what


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def two_ranks(tmp_path, port):
    """Runs a check on two ranks of this machine by msrun, with a planted fault."""

    def run(name, program=FAULTY, only=(), **environment):
        mark = Launcher.this(5).mark
        path = os.pathsep.join([str(COMMANDS), os.environ["PATH"]])
        variables = {MARK: mark, "PANGU_PYTHON": sys.executable, "PATH": path, **environment}
        nodes = plain_nodes(1, 2)
        job = Job((str(program),), nodes, "msrun", variables, cluster_timeout=60)
        setup = Setup("CPU", ((0, 1),), ((0, 1),))
        setup.save(tmp_path)
        machines = Machines(job, nodes[0], setup, tmp_path, 1)
        check = BY_NAME[name]
        if only:
            measurements = tuple(each for each in check.measurements if each.name in only)
            check = dataclasses.replace(check, measurements=measurements)
        with Signals() as signals:
            Runner(machines, Leader(tmp_path, 1, port), signals, print).run([check])
        return read_result(tmp_path, name)

    return run


@pytest.mark.long
def test_a_slow_link_in_a_real_group(two_ranks):
    found = two_ranks("links", PLANTED="slow link")
    assert found.verdict == "failed"
    assert any("of 1024 bytes, s" in each.what for each in found.findings if not each.passed)


@pytest.mark.long
def test_products_and_sums_that_hold_each_other_up(two_ranks):
    found = two_ranks("overlap", PLANTED="disturbed")
    (wrong,) = [each for each in found.findings if not each.passed]
    assert found.verdict == "failed" and wrong.what.startswith("both at the same time against")


def test_a_slow_device(cpu, measure, monkeypatch):
    from pangu_alpha.cluster_check.measure import speed

    monkeypatch.setattr(speed, "PRODUCTS", {"CPU": (256,)})
    monkeypatch.setattr(speed, "COPIES", {"CPU": (1 << 20,)})
    assert not measure("speed")
    real = speed.product_of

    def slow(dtype):
        product = real(dtype)

        def delayed(*factors):
            time.sleep(0.05)
            return product(*factors)

        return delayed

    monkeypatch.setattr(speed, "product_of", slow)
    (found,) = measure("speed")
    assert found.what == "best product, GFLOP/s"


@pytest.mark.long
def test_a_rank_that_is_killed(two_ranks):
    found = two_ranks("links", PLANTED="killed rank")
    assert found.verdict == "died" and "rank 1 on node 0 failed first, ended by SIGKILL" in found.why


@pytest.mark.long
def test_a_slice_of_another_rank(two_ranks):
    plan = "tp2_odd_vocabulary"
    found = two_ranks("partitioned", only=("graphs", "one", plan), PLANTED="swapped slice", PLAN=plan)
    assert found.verdict == "failed", found
    (wrong,) = [each for each in found.findings if not each.passed]
    assert wrong.what.startswith(f"{plan}: largest difference")
    weight = next(
        each for each in found.findings if each.what.startswith(f"{plan}: weight, most in step 3, ")
    )
    assert weight.value > 0.1  # of the tensor's movement


@pytest.mark.long
def test_an_overflow_of_which_other_ranks_do_not_hear(two_ranks):
    found = two_ranks("overflow", PLANTED="secret overflow")
    assert found.verdict == "failed", found
    wrong = {each.what: each.value for each in found.findings if not each.passed}
    assert wrong["together: steps that were skipped"] == "rank 0: 2"  # the others' are not its own
    assert wrong["together: different weights and moments at the end"] == 2


@pytest.mark.long
def test_a_resharded_checkpoint_with_two_tensors_swapped(two_ranks):
    found = two_ranks("reshard", PLANTED="swapped tensors")
    assert found.verdict == "failed", found
    wrong = [each.what for each in found.findings if not each.passed]
    kinds = ("loss against the whole run, relative", "last weights, in units of their movement")
    assert wrong == [f"{run}: {kind}" for run in ("other plan", "one device") for kind in kinds]


@pytest.mark.long
def test_a_wrong_rank_table(two_ranks, tmp_path):
    """Its second rank is on another server than this machine, which it has for the first."""
    servers = [
        {"server_id": name, "device": [{"device_id": "0", "device_ip": f"10.1.0.{n}", "rank_id": str(n)}]}
        for n, name in enumerate([socket.gethostname(), "another-machine"])
    ]
    table = tmp_path / "table.json"
    write_json(table, {"status": "completed", "version": "1.0", "server_count": "2", "server_list": servers})
    found = two_ranks("world", Path(rank.__file__), RANK_TABLE_FILE=str(table))
    assert found.verdict == "failed"
    (wrong,) = [each.value for each in found.findings if not each.passed]
    assert wrong.startswith("rank 1 (") and "has this rank on another-machine" in wrong
