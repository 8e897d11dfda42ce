"""The launcher of evaluate.py: every worker gets a share, and what all would refuse is refused once."""

from __future__ import annotations

import pytest

from pangu_alpha.cli.launch.command import main
from pangu_alpha.evaluation.tasks.item import TaskFilesError

WORDS = ["src/evaluate.py", "--nproc", "2", "--device", "CPU", "--checkpoint", "run", "--tasks", "ocnli"]


def test_workers_get_shares(tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*WORDS, "--data", str(tmp_path), "--output", str(out), "--dry"]) == 0
    printed = capsys.readouterr().out
    for rank in (0, 1):
        assert f"evaluate.py tasks --device CPU --checkpoint run --tasks ocnli --data {tmp_path}" in printed
        assert f"--share {rank}/2" in printed
    assert not out.exists()


def test_one_worker_needs_no_share(tmp_path, capsys):
    words = [word if word != "2" else "1" for word in WORDS]
    assert main([*words, "--data", str(tmp_path), "--output", str(tmp_path / "out"), "--dry"]) == 0
    assert "--share" not in capsys.readouterr().out


def test_what_every_worker_would_refuse_is_refused_once(tmp_path):
    given = [*WORDS, "--data", str(tmp_path)]
    with pytest.raises(ValueError, match="--output: name the folder of the results"):
        main(given)
    with pytest.raises(ValueError, match="--share: the launcher gives every worker its own"):
        main([*given, "--output", "out", "--share", "0/2"])
    with pytest.raises(TaskFilesError, match="no file of task ocnli"):
        main([*given, "--output", str(tmp_path / "out"), "--log-dir", str(tmp_path / "logs")])
    with pytest.raises(SystemExit):
        main([*given, "--output", "out", "--taks", "x"])
