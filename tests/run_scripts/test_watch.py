"""The watcher names the rank that fails first, stops the others, starts again; with tiny programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from pangu_alpha.cli.launch import main
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.launcher.commands import Command
from pangu_alpha.launcher.watch import GRACE, Bulletin, Console, Failure, last_lines, watch
from pangu_alpha.launcher.workers import OwnWorkers, log_of
from pangu_alpha.processes.signals import Signals


def start(folder, *codes):
    commands = [Command((sys.executable, "-c", code), rank=rank) for rank, code in enumerate(codes)]
    return OwnWorkers(commands, {"PYTHONUNBUFFERED": "1"}, folder)


def watched(folder, workers, root=None, name="node 0", grace=GRACE):
    bulletin = Bulletin(root or folder, folder)
    with Signals() as signals:
        return watch(workers, Console(log_of(folder, 0), 0), signals, bulletin, name, folder, grace)


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


def send_when_ready(log, *numbers):
    """Sends signals to this process as soon as it takes them and a worker says that it is ready."""

    def send():
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            time.sleep(0.02)
        while not log.exists() or "ready" not in log.read_text():
            time.sleep(0.02)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.02)  # those sent at once have no order

    threading.Thread(target=send).start()


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready")
time.sleep(60)
"""


def test_a_second_signal_ends_workers_that_do_not_stop(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pangu_alpha.processes.signals.TOGETHER", 0.0)
    workers = start(tmp_path, STUBBORN, "print('ready')")
    workers._processes[1].wait()  # so that rank 0 alone is left to be killed
    send_when_ready(log_of(tmp_path, 0), signal.SIGINT, signal.SIGTERM)
    assert watched(tmp_path, workers) is None
    assert workers.codes()[0] == -signal.SIGKILL
    output = capsys.readouterr().out
    first, second = re.findall(
        r"signal (\d+)(?:: the workers save and stop| again: killed .* rank 0;)", output
    )
    assert {first, second} == {"2", "15"} and "still runs in 1800 s (--grace) is killed" in output


def test_a_hang_up_stops_the_workers_and_the_grace_ends_them(hang_up, tmp_path, capsys):
    workers = start(tmp_path, STUBBORN)
    send_when_ready(log_of(tmp_path, 0), signal.SIGHUP)
    assert watched(tmp_path, workers, grace=0.2) is None
    assert workers.codes() == {0: -signal.SIGKILL}
    output = capsys.readouterr().out
    assert "signal 1: the workers save and stop; what still runs in 0.2 s (--grace) is killed" in output
    assert "the time to save is up (--grace): killed while they ran: rank 0;" in output


@pytest.mark.parametrize(
    ("ending", "words", "code"),
    [
        ("os.kill(os.getpid(), 34)", "ended by SIGRTMIN (34)", 162),
        ("os.kill(os.getpid(), 40)", "ended by SIGRTMIN+6 (40)", 168),
        ("os.kill(os.getpid(), 64)", "ended by SIGRTMAX (64)", 192),
        ("os._exit(255)", "exit code 255", 255),
    ],
)
def test_endings_of_all_kinds_are_named(tmp_path, ending, words, code):
    failure = watched(tmp_path, start(tmp_path, f"import os; {ending}"))
    assert words in str(failure) and failure.exit_code == code


@pytest.mark.parametrize(("code", "shell"), [(0, 1), (256, 1), (-200, 1), (300, 1), (-32, 160), (-127, 255)])
def test_an_exit_code_that_no_process_can_have_is_a_failure_all_the_same(code, shell):
    failure = Failure(0, code, "node 0", "log")
    assert failure.exit_code == shell and "rank 0 on node 0 failed first" in str(failure)


def test_names_in_a_failure_are_escaped():
    assert str(Failure(1, 1, "\x1b[31m", "\x9b")).count("\\x") == 2


GOOD = {"rank": 1, "code": 7, "node": "node 1", "log": "/logs/1"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"half of {",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        json.dumps(GOOD | {"more": 1}).encode(),
        json.dumps(GOOD | {"code": "7"}).encode(),
        json.dumps(GOOD | {"code": True}).encode(),
        json.dumps(GOOD | {"rank": 1.5}).encode(),
        json.dumps(GOOD | {"code": 10**30}).encode(),
        json.dumps(GOOD | {"node": None}).encode(),
        json.dumps(GOOD | {"log": ["/logs/1"]}).encode(),
    ],
)
def test_what_is_no_news_is_named_once_and_replaced_by_news(tmp_path, capsys, content):
    marker = tmp_path / "001"
    marker.mkdir()
    os.utime(marker, (1, 1))
    (tmp_path / "failed_0.json").write_bytes(content)
    bulletin = Bulletin(tmp_path, marker)
    assert bulletin.read() is None and bulletin.read() is None
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {tmp_path / 'failed_0.json'}") and said.count("\n") == 1
    bulletin.write(Failure(**GOOD))
    assert Bulletin(tmp_path, marker).read() == Failure(**GOOD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["001", "failed_0.json"]


def test_a_pipe_in_the_place_of_news_is_not_waited_for(tmp_path, capsys):
    marker = tmp_path / "001"
    marker.mkdir()
    os.utime(marker, (1, 1))
    os.mkfifo(tmp_path / "failed_0.json")
    assert Bulletin(tmp_path, marker).read() is None
    assert "is a pipe" in capsys.readouterr().err


def test_news_that_cannot_be_written_hide_no_failure(tmp_path, capsys):
    marker = tmp_path / "logs" / "001"
    marker.mkdir(parents=True)
    bulletin = Bulletin(tmp_path / "logs", marker)
    shutil.rmtree(tmp_path / "logs")
    bulletin.write(Failure(**GOOD))
    assert "the other nodes are not told of the failure" in capsys.readouterr().err


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
    assert "is a folder" in last_lines(tmp_path)[0]
    log.write_bytes(b"x" * 10_000_000 + b"\nthe end\n")  # only its end is read
    assert last_lines(log)[-1] == "the end" and sum(map(len, last_lines(log))) < 1_100_000


TRAIN = """
import os, sys
names = ("RANK_ID", "RANK_SIZE", "DEVICE_ID", "RANK_TABLE_FILE", "HCCL_EXEC_TIMEOUT")
print(*(os.environ.get(name) for name in names), *sys.argv[3:])
sys.exit(CODE if "--restarted" not in sys.argv and os.environ.get("RANK_ID", "0") == "0" else 0)
"""


@pytest.fixture
def program(tmp_path):
    """A train.py that shows who it is and fails in its first attempt with a given code."""

    def write(code):
        (tmp_path / "train.py").write_text(TRAIN.replace("CODE", str(code)), "utf-8")
        return str(tmp_path / "train.py")

    return write


def test_a_rank_table_start_and_a_restart(program, config, tmp_path, monkeypatch, capsys):
    from pangu_alpha.cluster.tables.rank_table import Device, RankTable, Server, write

    for module in ("command", "attempts"):
        monkeypatch.setattr(
            f"pangu_alpha.cli.launch.{module}.glob", lambda _: ["/dev/davinci0", "/dev/davinci1"]
        )
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
        assert log == f"{rank} 2 {rank} {tmp_path / 't.json'} 3600 {' '.join(words[-2:])} --restarted\n"


def test_the_given_interpreter_runs_the_workers_whatever_the_path_finds(config, tmp_path, monkeypatch):
    other = tmp_path / "bin"
    other.mkdir()
    for name in ("python", "python3", "msrun"):
        (other / name).write_text("#!/bin/sh\necho another one; exit 9\n", "utf-8")
        (other / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(other), prepend=os.pathsep)
    (tmp_path / "train.py").write_text("import os, sys; print(sys.executable, os.environ['PANGU_PYTHON'])")
    words = ["--config", config, "parallel.dp=1", "--log-dir", str(tmp_path / "logs")]
    assert main([str(tmp_path / "train.py"), *words]) == 0
    log = (tmp_path / "logs" / "node_0" / "001" / "worker_0.log").read_text("utf-8")
    assert log == f"{sys.executable} {sys.executable}\n"


def test_a_run_in_use_is_refused_before_a_worker_starts(config, tmp_path):
    (tmp_path / "train.py").write_text("exit(0)", "utf-8")
    run = tmp_path / "run"
    words = ["--config", config, "parallel.dp=1", "--log-dir", str(tmp_path / "logs"), f"run.output={run}"]
    with (
        hold_folder(run, "training"),
        pytest.raises(ValueError, match=rf"{run}: in use since .* by training"),
    ):
        main([str(tmp_path / "train.py"), *words])
    assert not (tmp_path / "logs").exists()
    assert main([str(tmp_path / "train.py"), *words]) == 0


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


def test_news_of_a_log_whose_name_is_not_utf8_reach_the_others(tmp_path):
    log = os.fsdecode("日志/worker_0.log".encode("gbk"))
    (tmp_path / "001").mkdir()
    there, here = (Bulletin(tmp_path, tmp_path / "001") for _ in range(2))
    here.write(Failure(0, 1, "node 0", log))
    news = there.read()
    assert (news.rank, news.code, news.node) == (0, 1, "node 0") and "\\udc" in news.log


def test_the_failure_of_another_job_with_the_same_log_folder_stops_nothing(config, tmp_path):
    wait = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
    for name, code in (("one", wait), ("other", "exit(7)")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text(code, "utf-8")
    words = ["--config", config, "parallel.dp=1", "--log-dir", str(tmp_path / "logs")]
    programs = [
        [str(tmp_path / name / "train.py"), *words, f"run.output={name}"] for name in ("one", "other")
    ]
    command = [sys.executable, "-m", "pangu_alpha.cli.launch", *programs[0]]
    one = subprocess.Popen(command, cwd=tmp_path)
    log = tmp_path / "logs" / "node_0" / "001" / "worker_0.log"
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert main(programs[1]) == 7
    time.sleep(0.5)  # several looks at what other nodes say
    assert one.poll() is None
    (tmp_path / "go").touch()
    assert one.wait(timeout=60) == 0


def test_news_of_jobs_of_several_nodes_are_apart():
    from dataclasses import replace

    from pangu_alpha.cli.launch.attempts import _name_of
    from pangu_alpha.launcher.commands import Job, plain_nodes
    from pangu_alpha.processes.belonging import OUTPUT

    job = Job(("train.py",), plain_nodes(2, 8), "msrun", {OUTPUT: "/runs/a"}, master=("10.0.0.1", 8118))
    assert _name_of(job) == _name_of(replace(job, program=("/other/train.py",), master=("10.0.0.1", 8119)))
    others = [
        replace(job, environment={OUTPUT: "/runs/b"}),
        replace(job, nodes=plain_nodes(4, 8)),
        replace(job, master=("10.0.0.2", 8118)),
    ]
    assert len({_name_of(each) for each in (job, *others)}) == 4


def test_each_job_reads_its_own_news(tmp_path):
    (tmp_path / "001").mkdir()
    one, other = (Bulletin(tmp_path, tmp_path / "001", 0, job) for job in ("1b2c3d4e", "5f6a7b8c"))
    one.write(Failure(0, 1, "node 0", "log"))
    assert one.read() is not None and other.read() is None
