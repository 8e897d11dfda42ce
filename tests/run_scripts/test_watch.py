"""The watcher names the rank that fails first, stops the others, starts again; with tiny programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pangu_alpha.cli.launch import main
from pangu_alpha.parallel.launch import Command
from pangu_alpha.parallel.watch import Bulletin, Console, Failure, Signals, last_lines, watch
from pangu_alpha.parallel.workers import OwnWorkers, log_of


def start(folder, *codes):
    commands = [Command((sys.executable, "-c", code), rank=rank) for rank, code in enumerate(codes)]
    return OwnWorkers(commands, {"PYTHONUNBUFFERED": "1"}, folder)


def watched(folder, workers, root=None, name="node 0"):
    bulletin = Bulletin(root or folder, folder)
    with Signals() as signals:
        return watch(workers, Console(log_of(folder, 0), 0), signals, bulletin, name, folder)


SLEEP = "import time; time.sleep(60)"


def test_the_first_failure_is_named_and_the_others_are_stopped(tmp_path):
    workers = start(tmp_path, SLEEP, "import time; time.sleep(0.5); raise RuntimeError('the cause')", SLEEP)
    began = time.monotonic()
    failure = watched(tmp_path, workers)
    assert time.monotonic() - began < 20
    assert (failure.rank, failure.code, failure.exit_code) == (1, 1, 1)
    assert list(workers.codes().values()) == [-9, 1, -9]
    assert last_lines(log_of(tmp_path, 1))[-1] == "RuntimeError: the cause"


def test_all_well(tmp_path, capsys):
    assert watched(tmp_path, start(tmp_path, "print('from rank 0')", "print('from rank 1')")) is None
    assert capsys.readouterr().out == "from rank 0\n"  # one log is shown, all are kept
    assert log_of(tmp_path, 1).read_text() == "from rank 1\n"


def test_a_signal_is_passed_on_and_waited_for(tmp_path, capsys):
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(143)))
print("ready")
time.sleep(60)
"""
    workers = start(tmp_path, code, code)

    def send():
        while "ready" not in log_of(tmp_path, 0).read_text() + log_of(tmp_path, 1).read_text():
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    assert watched(tmp_path, workers) is None
    assert list(workers.codes().values()) == [143, 143]
    assert "saved" in capsys.readouterr().out


def test_nodes_tell_each_other(tmp_path):
    folders = [tmp_path / f"node_{place}" for place in (0, 1)]
    for folder in folders:
        folder.mkdir()
    (tmp_path / "failed_0.json").write_text("news of an earlier attempt, older than the folders", "utf-8")
    os.utime(tmp_path / "failed_0.json", (1, 1))
    workers = [start(folders[0], SLEEP), start(folders[1], "import time; time.sleep(0.5); exit(7)")]
    bulletins = [Bulletin(tmp_path, folder) for folder in folders]
    with Signals() as signals:
        second = watch(
            workers[1], Console(folders[1] / "none", 0), signals, bulletins[1], "node 1", folders[1]
        )
        first = watch(
            workers[0], Console(folders[0] / "none", 0), signals, bulletins[0], "node 0", folders[0]
        )
    assert first == second == Failure(0, 7, "node 1", str(log_of(folders[1], 0)))
    assert workers[0].codes() == {0: -9}


def test_heartbeat_only_while_the_first_step_compiles(tmp_path, capsys):
    log = tmp_path / "log"
    console = Console(log, heartbeat=0.05)
    console.update()
    log.write_text("resumed\ncompiling the training graph of 5 parameters\n")
    console.update()
    time.sleep(0.1)
    console.update()
    with log.open("a") as file:
        file.write("[INFO] DISTRIBUTED(1): chatter\nstep      1/5\nhalf a li")
    console.update()
    time.sleep(0.1)
    console.update()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "compiling the training graph of 5 parameters",
        "compiling for 0 s ...",
        "step      1/5",
    ]


def test_last_lines_explain_the_code_of_hccl(tmp_path):
    log = tmp_path / "log"
    log.write_text("step 1\nTraceback (most recent call last):\n  somewhere\nRuntimeError: EI0002: timeout\n")
    lines = last_lines(log)
    assert lines[0].startswith("Traceback") and lines[-1].startswith("hint: HCCL: a rank did not arrive")
    assert "no log" in last_lines(tmp_path / "none")[0]


TRAIN = """
import os, sys
names = ("RANK_ID", "RANK_SIZE", "DEVICE_ID", "RANK_TABLE_FILE", "HCCL_EXEC_TIMEOUT")
print(*(os.environ.get(name) for name in names), *sys.argv[3:])
sys.exit(CODE if "--resume" not in sys.argv and os.environ.get("RANK_ID", "0") == "0" else 0)
"""


@pytest.fixture
def program(tmp_path):
    """A train.py that shows who it is and fails in its first attempt with a given code."""

    def write(code):
        (tmp_path / "train.py").write_text(TRAIN.replace("CODE", str(code)), "utf-8")
        return str(tmp_path / "train.py")

    return write


def test_a_rank_table_start_and_a_restart(program, config, tmp_path, monkeypatch, capsys):
    from pangu_alpha.parallel.rank_table import Device, RankTable, Server, write

    monkeypatch.setattr("pangu_alpha.cli.launch.glob", lambda _: ["/dev/davinci0", "/dev/davinci1"])
    devices = (Device(0, 0, "10.1.0.1"), Device(1, 1, "10.1.0.2"))
    write(RankTable((Server("10.0.0.1", devices),)), tmp_path / "t.json")
    words = ["--start", "rank-table", "--rank-table", str(tmp_path / "t.json"), "--node-rank", "0"]
    words += ["--config", config, "--log-dir", str(tmp_path / "logs"), "--restarts", "2", "run.seed=3"]
    words += ["data.validation=null"]
    assert main([program(5), *words]) == 0
    output = capsys.readouterr()
    assert "rank 0 on 10.0.0.1 failed first, exit code 5" in output.err
    assert output.out.count("restart ") == 1 and "restart 1 of 2" in output.out
    for rank in (0, 1):
        log = (tmp_path / "logs" / "node_0" / "002" / f"worker_{rank}.log").read_text()
        assert log == f"{rank} 2 {rank} {tmp_path / 't.json'} 3600 {' '.join(words[-2:])} --resume auto\n"


@pytest.mark.parametrize(("code", "attempts"), [(2, 1), (3, 1), (9, 3)])
def test_exit_codes_and_attempts(config, tmp_path, code, attempts):
    (tmp_path / "train.py").write_text(f"exit({code})", "utf-8")
    words = ["--config", config, "parallel.dp=1", "--restarts", "2", "--log-dir", str(tmp_path / "logs")]
    assert main([str(tmp_path / "train.py"), *words]) == code
    assert len(list((tmp_path / "logs" / "node_0").iterdir())) == attempts


def test_predict_shares_prompts_out(tmp_path):
    (tmp_path / "predict.py").write_text(
        """
import json, sys
files = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(files["--output"], "w") as output:
    for index, prompt in enumerate(open(files["--prompt-file"]).read().split()):
        print(json.dumps({"index": index, "text": prompt + files["--checkpoint"]}), file=output)
""",
        "utf-8",
    )
    (tmp_path / "prompts.txt").write_text("a\nb\n\nc\nd\ne\n", "utf-8")
    output = tmp_path / "out.jsonl"
    words = ["--nproc", "2", "--prompt-file", str(tmp_path / "prompts.txt"), "--output", str(output)]
    words += ["--log-dir", str(tmp_path / "logs"), "--checkpoint", "!"]
    assert main([str(tmp_path / "predict.py"), *words]) == 0
    expected = [f'{{"index": {index}, "text": "{text}!"}}' for index, text in enumerate("abcde")]
    assert output.read_text("utf-8").splitlines() == expected


def test_scripts_are_clean():
    import shutil
    from pathlib import Path

    scripts = sorted(str(path) for path in (Path(__file__).parents[2] / "run_scripts").glob("*.sh"))
    assert len(scripts) >= 7
    for path in scripts:
        assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    checker = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if checker is None:
        pytest.skip("shellcheck is not installed (setup.py's dev extra)")
    done = subprocess.run([checker, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
