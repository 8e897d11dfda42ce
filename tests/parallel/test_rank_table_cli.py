"""rank_table.py end to end: from host lists and hccn.conf files to placed, checked, drawn tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.cli.rank_table import main
from pangu_alpha.parallel.rank_table import read

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "rank_tables"
GRID = ["--dp", "2", "--tp", "4", "--pp", "4"]


def run(*words):
    return main([str(word) for word in words])


def test_build_from_a_host_list(tmp_path, capsys):
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("10.0.0.1\n10.0.0.2\n", "utf-8")
    out = tmp_path / "table.json"
    rule = "10.{device%4+1}.{server}.{device+1}"
    assert run("build", "--hosts", hosts, "--device-ip", rule, "--output", out) == 0
    assert out.read_text("utf-8") == (SHIPPED / "16p.json").read_text("utf-8")
    assert "2 server(s), 16 devices, ranks 0 to 15; checked" in capsys.readouterr().out


def test_build_parts_from_hccn_conf_and_merge(tmp_path):
    for node in (1, 2):
        lines = [f"address_{i}=10.{node}.0.{i + 1}" for i in range(8)]
        (tmp_path / f"{node}.conf").write_text("\n".join(lines), "utf-8")
        source = f"10.0.0.{node}={tmp_path / f'{node}.conf'}"
        first = ("--first-rank", 8 * (node - 1))
        assert run("build", "--hccn", source, *first, "--output", tmp_path / f"{node}.json") == 0
    out = tmp_path / "all.json"
    assert run("merge", tmp_path / "2.json", tmp_path / "1.json", "--output", out) == 0
    table = read(out)
    assert [server.server_id for server in table.servers] == ["10.0.0.1", "10.0.0.2"]
    assert table.find(9)[1].device_ip == "10.2.0.2"
    with pytest.raises(ValueError, match="rank 8-15 is already that of"):
        run("merge", tmp_path / "2.json", tmp_path / "2.json", "--output", tmp_path / "no.json")
    assert not (tmp_path / "no.json").exists()


def test_permute_check_draw(tmp_path, capsys):
    out, picture = tmp_path / "placed.json", tmp_path / "placed.png"
    grid = ["--dp", "2", "--tp", "8", "--pp", "2"]
    placement = ["--servers-per-rack", "2", "--placement", "rack=data server=stage device=tensor"]
    assert run("permute", SHIPPED / "32p_4x2x4.json", *grid, *placement, "--output", out) == 0
    assert [server.ranks[0] for server in read(out).servers] == [0, 16, 8, 24]
    assert run("check", out, SHIPPED / "32p_4x2x4.json", *grid) == 0
    assert run("draw", out, *grid, "--servers-per-rack", "2", "--output", picture) == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    assert "placed.json: no problems" in capsys.readouterr().out


def test_check_lists_problems(tmp_path, capsys):
    broken = tmp_path / "broken.json"
    text = (SHIPPED / "32p_4x2x4.json").read_text("utf-8")
    broken.write_text(text.replace('"rank_id": "9"', '"rank_id": 9').replace('"4"', '"5"', 1), "utf-8")
    assert run("check", broken) == 1
    printed = capsys.readouterr().out
    assert "broken.json: 2 problems" in printed
    assert "server 10.0.0.2, device 1: rank_id is the number 9" in printed
    assert "server_count is 5, server_list has 4" in printed
    assert run("check", SHIPPED / "32p_4x2x4.json", "--dp", "4", "--tp", "4", "--pp", "4") == 1
    assert "has 32 devices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", SHIPPED / "8p.json", "--dp", "8"], "--dp, --tp and --pp belong together"),
        (["build", "--servers", "2", "--output", "x"], "--servers and --server-ip belong together"),
        (["build", "--hccn", "10.0.0.1", "--output", "x"], "must be SERVER=FILE"),
        (["draw", SHIPPED / "8p.json", *GRID, "--output", "x.png"], "the table has 8 devices"),
    ],
)
def test_options_that_do_not_fit(words, message):
    with pytest.raises(ValueError, match=message):
        run(*words)


def test_script_gives_exit_codes(tmp_path):
    def code(*words):
        command = [sys.executable, str(ROOT / "src" / "rank_table.py"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert code("check", SHIPPED / "32p_4x2x4.json", *GRID)[0] == 0
    (tmp_path / "comment.json").write_text('{\n  "version": "1.0" // one\n}\n', "utf-8")
    assert code("check", tmp_path / "comment.json") == (
        2,
        f"error: {tmp_path}/comment.json, line 2: a comment (//), which JSON does not have; remove it\n",
    )
    assert code("check", tmp_path / "none.json") == (
        2,
        f"error: {tmp_path}/none.json: there is no such file or folder\n",
    )


def test_help_stays_light():
    code = (
        "import sys; from pangu_alpha.cli.rank_table import main\n"
        "assert not [m for m in ('mindspore', 'matplotlib') if m in sys.modules]"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
