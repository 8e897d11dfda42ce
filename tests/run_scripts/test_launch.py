"""Options, topology, commands and refusals of the launchers; nothing of MindSpore runs here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pangu_alpha.cli.launch import main
from pangu_alpha.cli.launch.attempts import new_folder, wait_for_port
from pangu_alpha.cli.launch.options import parse
from pangu_alpha.cli.launch.predict import join_outputs
from pangu_alpha.cluster.tables.rank_table import Device, RankTable, Server, write
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.launcher.commands import log_dir_fault, plain_nodes, topology

TRAIN, PREDICT = "src/train.py", "src/predict.py"
NODE_0 = ("--master-addr", "10.0.0.1")
NPU = ("--device", "Ascend")


@pytest.fixture
def paper(tmp_path):
    """YAML of the 200B model on 2048 devices: dp 16, tp 8, pp 16."""
    settings = {
        "model": "200b",
        "data": {"train": {"all": {"records": "/data/records"}}},
        "run": {"output": "/data/run", "steps": 10},
        "parallel": {"dp": 16, "tp": 8, "pp": 16, "micro_batches": 16},
    }
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return str(path)


@pytest.fixture
def table(tmp_path):
    """Rank table of 2 servers of 2 devices; the second server has the first ranks."""
    servers = tuple(
        Server(
            f"10.0.0.{place}", tuple(Device(d, (1 - place) * 2 + d, f"10.1.{place}.{d + 1}") for d in (0, 1))
        )
        for place in (0, 1)
    )
    write(RankTable(servers), tmp_path / "table.json")
    return str(tmp_path / "table.json")


def dry(capsys, *words):
    assert main([TRAIN, "--dry", *words]) == 0
    return capsys.readouterr().out


def test_dry_prints_every_node_of_2048_devices(paper, capsys):
    words = ("--nnodes", "256", "--nproc", "8", "--master-addr", "10.0.0.1", "--compile-cache", "/cache")
    output = dry(capsys, "--config", paper, *words, "optim.learning_rate=2e-5")
    lines = output.splitlines()
    assert lines[0] == "256 nodes, 2048 devices: dp 16, tp 8, pp 16"
    assert " ".join(lines[1 + 17].split()) == "node 17 ranks 136-143 stage 1 data 1 tensor 0-7"
    starts = [line for line in lines if line.startswith("msrun ")]
    assert len(starts) == 256 and len(set(starts)) == 256
    for place, line in enumerate(starts):
        for word in ("--worker_num=2048", "--local_worker_num=8", "--master_addr=10.0.0.1", "--join=True",
                     f"--node_rank={place}", "optim.learning_rate=2e-5"):  # fmt: skip
            assert word in line.split()
    for line in ("HCCL_CONNECT_TIMEOUT=1200", "HCCL_EXEC_TIMEOUT=3600", "MS_COMPILER_CACHE_ENABLE=1"):
        assert f"export {line}" in lines


def test_a_compiled_graph_is_only_for_its_own_config(config, capsys):
    def folder(*words):
        output = dry(capsys, "--config", config, "--compile-cache", "/cache", *words)
        (line,) = [line for line in output.splitlines() if "MS_COMPILER_CACHE_PATH=/cache/" in line]
        return line

    assert folder() == folder("run.output=elsewhere", "run.steps=9")
    others = ("optim.clip_norm=0.5", "model.dropout=0.2", "run.batch_size=4", "parallel.micro_batches=3",
              "run.chip=910A", "run.chip=910B", "run.attention_dropout=device",
              "run.float32_matmul_precision=medium")  # fmt: skip
    assert len({folder(), *map(folder, others)}) == 1 + len(others)
    assert folder() == folder("run.seed=2")  # keys of masks are an input of the graph
    seeds = [folder("run.attention_dropout=device", f"run.seed={seed}") for seed in (1, 2)]
    assert seeds[0] == folder("run.attention_dropout=device") != seeds[1]


def test_a_compiled_graph_is_only_for_its_own_kernels(config, tmp_path, capsys, monkeypatch):
    def folder(device):
        words = (f"run.device={device}", "data.validation=null")
        output = dry(capsys, "--config", config, "--compile-cache", "/cache", *words)
        (line,) = [line for line in output.splitlines() if "MS_COMPILER_CACHE_PATH=/cache/" in line]
        return line

    first, ascend = folder("CPU"), folder("Ascend")
    for name, value in (("PANGU_KERNELS", "off"), ("CXX", "another-compiler"), ("HOME", str(tmp_path))):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert folder("CPU") != first and folder("Ascend") == ascend, name
    monkeypatch.setenv("PANGU_KERNELS", "on")
    assert folder("CPU") == first


def test_dry_of_a_rank_table_prints_every_process(config, table, capsys):
    words = ("--config", config, "--start", "rank-table", "--rank-table", table, "parallel.tp=2",
             "data.validation=null")  # fmt: skip
    output = dry(capsys, *words, "--bind-cores")
    starts = [line for line in output.splitlines() if "RANK_ID" in line]
    ranks = [line.split("RANK_ID=")[1].split()[0] for line in starts]
    assert ranks == ["2", "3", "0", "1"]  # as the table says, not as the servers come
    for line, device in zip(starts, "0101", strict=True):
        assert f"RANK_TABLE_FILE={table} RANK_SIZE=4" in line and f"DEVICE_ID={device} taskset -c" in line
        assert "python src/train.py --config" in line and "msrun" not in line
    assert "10.0.0.0         ranks 2-3         stage 0  data 1  tensor 0-1" in output


def test_one_device_starts_without_msrun(config, capsys):
    output = dry(capsys, "--config", config, "parallel.dp=1", "--device", "CPU")
    assert "msrun" not in output and "python src/train.py" in output and "run.device=CPU" in output


NASTY = "a b;touch pwned $(touch pwned) `touch pwned` 'x\" &|<>* \\ ~\n# \x1b[31m红"


@pytest.mark.parametrize(
    "word", [NASTY, "模型".encode("gbk"), "模型 a".encode("gbk") + b"'\xff0", "\ue000\U0001f600\x85"]
)
def test_a_word_is_read_back_by_bash_as_it_was(word):
    from pangu_alpha.launcher.commands import shell_word

    text = word if isinstance(word, str) else os.fsdecode(word)
    shown = shell_word(text)
    shown.encode("utf-8")  # so a terminal can show it
    done = subprocess.run(["bash", "-c", f"printf %s {shown}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(text)


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Stands in for this interpreter: notes the words it gets, in a folder with a blank in its name."""
    path = tmp_path / "an interpreter" / "python3.11"
    path.parent.mkdir()
    noted = "json.dumps([sys.argv[1:], os.environ.get('MS_COMPILER_CACHE_PATH')])"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\nprint({noted})\n", "utf-8")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


@pytest.mark.parametrize("devices", [1, 2])
def test_what_dry_prints_does_in_a_shell_what_a_launch_does(
    config, tmp_path, capsys, monkeypatch, interpreter, devices
):
    monkeypatch.chdir(tmp_path)
    yaml_file, logs, cache = (f"{name} {NASTY}" for name in ("yaml", "logs", "cache"))
    shutil.copyfile(config, yaml_file)
    overrides = (f"parallel.dp={devices}", f"run.output={json.dumps(NASTY)}")
    words = ("--config", yaml_file, "--log-dir", logs, "--compile-cache", cache, "--device", "CPU")
    output = dry(capsys, *words, *overrides)
    script = output[output.index("# every process") :] + "\nwait\n"
    assert "\x1b" not in script  # no terminal shows another colour
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.rglob("pwned*"))
    (log,) = (tmp_path / logs / "node_0" / "001").iterdir()
    given, graphs = json.loads(log.read_text("utf-8"))
    program = [TRAIN, "--config", yaml_file, *overrides, "run.device=CPU"]
    if devices == 1:
        assert given == program and log.name == "worker_0.log"
    else:
        assert given[:2] == ["-m", "mindspore.parallel.cluster.run"] and given[-len(program) :] == program
    assert graphs.startswith(str(tmp_path / cache))


@pytest.mark.parametrize("word", ["a b", "日志", "run-1_x.y", "[2026]*~#"])
def test_log_folders_that_a_shell_only_reads_are_taken_by_msrun(word):
    assert log_dir_fault(f"/logs/{word}") is None


@pytest.mark.parametrize("word", [*";&|<>()`\"'\\", "$(true)", "\n", "\x1b"])
def test_log_folders_that_a_shell_acts_on_are_refused_for_msrun(config, tmp_path, word, capsys):
    words = ["--config", config, "--device", "CPU", "--log-dir", str(tmp_path / f"a{word}b")]
    with pytest.raises(ValueError, match="--log-dir: .*msrun hands this path to a shell, which would act on"):
        main([TRAIN, *words])
    assert not list(tmp_path.iterdir())
    assert main([TRAIN, "--dry", *words]) == 0
    assert "warning: --log-dir: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("root@10.1.0.12", r"'root@10\.1\.0\.12' names a user; give the host alone: 10\.1\.0\.12"),
        ("10.1.0.11:22", r"names a port; give the host alone, 10\.1\.0\.11, and a port by --master-port"),
        ("[fe80::1]:22", r"names a port; give the host alone, \[fe80::1\]"),
        ("node[01-04]", "is a pattern or a list; give one host"),
        ("node01,node02", "is a pattern or a list"),
        ("node01 node02", "is a pattern or a list"),
        ("tcp://node01", "is no name or address of a host"),
        ("10.1.0", "is no name or address of a host"),
        ("300.1.0.1", "is no name or address of a host"),
        ("", "is no name or address of a host"),
        ("-node", "is no name or address of a host"),
        ("$(reboot)", "is no name or address of a host"),
        ("\x1b[31m", r"\\x1b"),
    ],
)
def test_addresses_that_are_none_are_refused(config, address, message):
    with pytest.raises(ValueError, match=f"--master-addr: .*{message}"):
        main([TRAIN, "--config", config, "--dry", "--device", "CPU", f"--master-addr={address}"])


@pytest.mark.parametrize(
    "address", ["10.1.0.12", "::1", "[::1]", "fe80::1%eth0", "node01", "gpu_7.cluster.local"]
)
def test_addresses_are_taken(config, capsys, address):
    words = ("--config", config, "--device", "CPU", "--master-addr", address)
    assert f"--master_addr={address}" in dry(capsys, *words)


def test_words_stand_on_both_sides_of_the_options(config, capsys):
    words = ("run.steps=2", "--config", config, "run.log_every=1", "--device", "CPU", "run.seed=3")
    output = dry(capsys, *words)
    assert f"{TRAIN} --config {config} run.steps=2 run.log_every=1 run.seed=3 run.device=CPU" in output


def test_a_long_topology_is_cut_around_this_node():
    nodes, plan = plain_nodes(256, 8), ParallelPlan(dp=16, tp=8, pp=16, micro_batches=16)
    lines = topology(nodes, plan, here=100).splitlines()
    assert len(lines) < 20 and "240 more nodes" in lines[-1]
    (mine,) = [line for line in lines if "<- this node" in line]
    assert mine.startswith("  node 100         ranks 800-807")
    assert len(topology(nodes, plan, full=True).splitlines()) == 257


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nprok", "2"), "--nprok: unknown; did you mean --nproc?"),
        (("--zzz",), "see --help"),
        (("steps",), "steps: unknown"),
        (("--resume", "auto"), "--resume: unknown; here it is written run.resume=HOW"),
        (("--nproc", "4"), r"needs 2 devices \(dp 2 \* tp 1 \* pp 1\), 1 node of 4 workers give 4"),
        ((*NODE_0, "--nnodes", "3", "--nproc", "1"), "3 nodes of 1 workers give 3"),
        (("--nnodes", "2", "--node-rank", "1"), "--master-addr: needed with 2 nodes: the address of node 0"),
        ((*NODE_0, "--nnodes", "2", "--nproc", "1"), "--node-rank: needed with 2 nodes"),
        ((*NODE_0, "--nnodes", "2", "--node-rank", "2"), r"--node-rank: 2 lies outside 0\.\.1"),
        (("--device", "CPU", "parallel.tp=2"), "data parallel only"),
        (("run.device=CPU", "parallel.tp=2"), "data parallel only"),
        ((*NPU, "data.validation=null"), "devices 0, 1 are wanted, /dev has 0 davinci"),
        (("parallel.tp=2", "data.validation=null"), "devices 0, 1, 2, 3 are wanted, /dev has 0 davinci"),
        (("--start", "rank-table"), "need each other"),
        (("--rank-table", "table.json"), "need each other"),
        (("parallel.dq=2",), "parallel.dq"),
        (("--master-port", "65000", "--restarts", "600"), "65000 with 600 restarts goes beyond 65535"),
        ((*NODE_0, "--nnodes", "9" * 18), "--nnodes, --nproc: 9{18} nodes of 1 workers are too many"),
        (("--nproc", "9" * 18), "--nnodes, --nproc: 1 nodes of 9{18} workers are too many"),
    ],
)
def test_refusals(config, words, message):
    with pytest.raises(ValueError, match=message):
        main([TRAIN, "--config", config, *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*NPU, "parallel.dp=6", "data.validation=null"), "MindSpore 2.9 takes 1, 2, 4 or a multiple of 8"),
        (NPU, r"data\.validation: a run that MindSpore partitions has no validation"),
        (("parallel.tp=2",), r"data\.validation: a run that MindSpore partitions"),
        (
            ("--device", "CPU", "run.checkpoint.storage=local"),
            "'local' is for runs that MindSpore partitions",
        ),
        (("--nnodes", "2"), "--master-addr: needed"),
    ],
)
def test_dry_refuses_what_every_worker_would(config, words, message):
    with pytest.raises(ValueError, match=message):
        main([TRAIN, "--config", config, "--dry", *words])


def test_dry_of_a_prediction_refuses_what_every_worker_would(tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("甲\n乙\n", "utf-8")
    words = [PREDICT, "--dry", "--prompt-file", str(prompts), "--output", "all.jsonl"]
    assert main([*words, "--checkpoint", "run"]) == 0
    assert capsys.readouterr().out.count("src/predict.py --checkpoint run") == 1  # --nproc 1
    with pytest.raises(SystemExit):
        main(words)
    assert "required: --checkpoint" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no effect with greedy"):
        main([*words, "--checkpoint", "run", "--greedy", "--top-k", "3"])


def test_an_interpreter_without_mindspore_is_named(config, tmp_path, monkeypatch, port):
    """msrun runs under this interpreter and not under one that the PATH finds."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("pangu_alpha.cli.launch.attempts.find_spec", lambda name: None)
    words = ("--device", "CPU", "--nproc", "2", "--log-dir", str(tmp_path / "logs"), "--master-port", port)
    with pytest.raises(ValueError, match="MindSpore is not installed for this interpreter; give another"):
        main([TRAIN, "--config", config, *words])


def test_rank_tables_that_differ_from_the_request(config, table):
    start = [
        TRAIN,
        "--config",
        config,
        "--start",
        "rank-table",
        "--rank-table",
        table,
        "data.validation=null",
    ]
    with pytest.raises(ValueError, match="has 4 devices, the grid dp 2, tp 1, pp 1 has 2"):
        main(start)
    with pytest.raises(ValueError, match="--nnodes: 1 asked for, the rank table has 2 servers"):
        main([*start, "parallel.dp=4", "--nnodes", "1"])
    with pytest.raises(ValueError, match=r"--nproc: 4 asked for, the rank table gives 10\.0\.0\.0 2 devices"):
        main([*start, "parallel.dp=4", "--nproc", "4"])
    with pytest.raises(ValueError, match="no server_id is this node's"):
        main([*start, "parallel.dp=4"])
    with pytest.raises(ValueError, match="started by msrun"):
        main([*start, "parallel.dp=4", "--device", "CPU"])


@pytest.mark.parametrize(
    "words",
    [
        ("--nproc", "0"),
        ("--nproc", "9" * 5000),
        ("--restarts", "-1"),
        ("--start", "ssh"),
        ("--grace", "-1"),
        ("--grace", "soon"),
        ("--master-port", "65536"),
        ("--heartbeat", "²"),
        ("--log-dir", ""),
    ],
)
def test_values_out_of_range_are_refused(config, words, capsys):
    with pytest.raises(SystemExit):
        main([TRAIN, "--config", config, *words])
    assert words[0] in capsys.readouterr().err


def test_help_and_documentation_name_every_option(capsys):
    page = (Path(__file__).parents[2] / "docs" / "launching.md").read_text("utf-8")
    for program in ("train", "predict", "evaluate"):
        with pytest.raises(SystemExit):
            parse(["--help"], program)
        text = capsys.readouterr().out
        options = {word.strip(",]") for word in text.split() if word.startswith("--")}
        assert len(options) >= 10 and "None" not in text
        missing = [option for option in options if f"`{option}" not in page]
        assert not missing


def test_a_taken_port_is_named():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with pytest.raises(ValueError, match=f"--master-port {number}.*in use"):
            wait_for_port("127.0.0.1", number, seconds=0.1)


def test_folders_of_attempts_are_never_used_twice(tmp_path):
    assert [new_folder(tmp_path / "node_0").name for _ in range(3)] == ["001", "002", "003"]


def test_outputs_of_shares_are_joined_in_the_prompts_order(tmp_path):
    (tmp_path / "a").write_text('{"index": 1, "text": "乙"}\n{"index": 0, "text": "甲"}\n', "utf-8")
    (tmp_path / "b").write_text('{"index": 0, "text": "丙"}\n', "utf-8")
    join_outputs([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert (tmp_path / "all").read_text("utf-8").splitlines() == [
        f'{{"index": {index}, "text": "{text}"}}' for index, text in enumerate("甲乙丙")
    ]


def test_joining_leaves_the_old_file_or_the_whole_new_one(tmp_path):
    lines = ['{"index": 0, "text": "甲\u2028乙\x85"}\n', '{"index": 0, "te']
    (tmp_path / "all").write_text("old\n")
    for name, line in zip("ab", lines, strict=True):
        (tmp_path / name).write_text(line, "utf-8")
    with pytest.raises(ValueError, match="b, line 1, column 14: not JSON"):
        join_outputs([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert (tmp_path / "all").read_text() == "old\n"
    assert sorted(os.listdir(tmp_path)) == ["a", "all", "b"]
    join_outputs([tmp_path / "a"], tmp_path / "all")
    assert (tmp_path / "all").read_text("utf-8") == lines[0]


def test_a_prediction_that_could_not_be_shared_out_is_refused(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("甲\n乙\n", "utf-8")
    words = [PREDICT, "--dry", "--checkpoint", "run", "--output"]
    for output, more, message in (
        ("all.jsonl", ("--prompt", "丙"), "--prompt: every worker would continue it"),
        ("all.jsonl", ("--nproc", "3"), "2 prompts for 3 workers"),
        (tmp_path, (), "is a folder"),
        (tmp_path / "absent" / "all.jsonl", (), "absent: there is no such folder"),
    ):
        with pytest.raises(ValueError, match=message):
            main([*words, str(output), "--prompt-file", str(prompts), *more])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: is a pipe"):
        main([*words, "all.jsonl", "--prompt-file", str(tmp_path / "pipe")])
    prompts.write_bytes(b"a\n\xff")
    with pytest.raises(ValueError, match="prompts.txt, line 2: not UTF-8"):
        main([*words, "all.jsonl", "--prompt-file", str(prompts)])


def test_the_launcher_needs_no_mindspore():
    code = "import sys, pangu_alpha.cli.launch.predict; assert 'mindspore' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
