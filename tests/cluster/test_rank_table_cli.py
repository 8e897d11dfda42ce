"""rank_table.py end to end: from host lists and hccn.conf files to placed, checked, drawn tables."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pangu_alpha.cli.rank_table import main
from pangu_alpha.cluster.tables.rank_table import read

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


def on_a_full_disk(*words, most):
    """Runs a script whose files cannot grow beyond some bytes, as on a disk that is full."""
    command = [sys.executable, *map(str, words)]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [
            "build",
            "--servers",
            "4",
            "--server-ip",
            "10.0.0.{server+1}",
            "--device-ip",
            "10.{device}.0.{server+1}",
        ],
        ["merge", SHIPPED / "32p_4x2x4.json"],
        ["permute", SHIPPED / "32p_4x2x4.json", *GRID, "--order", "tp,pp,dp"],
        ["draw", SHIPPED / "32p_4x2x4.json", *GRID],
    ],
    ids=lambda words: words[0],
)
def test_a_full_disk_loses_no_file(words, tmp_path):
    path = tmp_path / "kept.png" if words[0] == "draw" else tmp_path / "kept.json"
    path.write_text("what was there before")
    code, said = on_a_full_disk(ROOT / "src" / "rank_table.py", *words, "--output", path, most=1000)
    assert (code, said.splitlines()[-1]) == (2, f"error: {path}: File too large")
    assert path.read_text() == "what was there before"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_loses_no_plan(tmp_path):
    for name in ("plan.yaml", "report.json"):
        (tmp_path / name).write_text("what was there before")
    words = ["search", "--model", "tiny", "--cluster", "910a-8", "--global-batch", "8", "--output"]
    code, said = on_a_full_disk(ROOT / "src" / "plan.py", *words, tmp_path, most=100)
    assert (code, said) == (2, f"error: {tmp_path}/plan.yaml: File too large\n")
    code, said = on_a_full_disk(ROOT / "src" / "plan.py", *words, tmp_path, most=500)
    assert (code, said) == (2, f"error: {tmp_path}/report.json: File too large\n")
    assert (tmp_path / "report.json").read_text() == "what was there before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["plan.yaml", "report.json"]


def test_permute_by_an_order(tmp_path):
    out = tmp_path / "placed.json"
    words = ["--dp", "2", "--tp", "8", "--pp", "2", "--order", "tp,pp,dp", "--output", out]
    assert run("permute", SHIPPED / "32p_4x2x4.json", *words) == 0
    assert [server.ranks[0] for server in read(out).servers] == [0, 16, 8, 24]
    with pytest.raises(ValueError, match="order: tp,pp must name tp, dp, pp once each"):
        run("permute", SHIPPED / "32p_4x2x4.json", *words[:7], "tp,pp", "--output", out)


def test_a_note_on_groups_that_cross_servers(capsys):
    assert run("check", SHIPPED / "16p.json", "--dp", "1", "--tp", "16", "--pp", "1") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  note: every tensor parallel group of 16 lies on 2 servers, 8 neighbours on each; that is slow "
        "unless the plan was searched for it"
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["build", "--servers", "0", "--server-ip", "a", "--output", "x"],
        ["build", "--servers", "9" * 5000, "--server-ip", "a", "--output", "x"],
        ["build", "--hosts", "x", "--first-rank", "-1", "--output", "x"],
        [
            "permute",
            SHIPPED / "8p.json",
            *GRID,
            "--servers-per-rack",
            "0",
            "--placement",
            "x",
            "--output",
            "x",
        ],
        ["draw", SHIPPED / "32p_4x2x4.json", *GRID, "--servers-per-rack", "0", "--output", "x.png"],
        ["check", SHIPPED / "8p.json", "--dp", "0", "--tp", "1", "--pp", "1"],
    ],
)
def test_numbers_that_make_no_sense(words, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    assert "is not a whole number of at least" in capsys.readouterr().err


def test_hosts_as_ssh_slurm_and_mpi_list_them(tmp_path):
    hosts, out = tmp_path / "hosts", tmp_path / "table.json"
    hosts.write_text(
        "# hosts of the job\nroot@10.0.0.1 slots=8\n10.0.0.2 slots=8 max_slots=8\nnode[01-02]  8  # two\n"
    )
    rule = "10.{device%4+1}.{server}.{device+1}"
    assert run("build", "--hosts", hosts, "--device-ip", rule, "--output", out) == 0
    assert [server.server_id for server in read(out).servers] == ["10.0.0.1", "10.0.0.2", "node01", "node02"]
    assert [len(server.devices) for server in read(out).servers] == [8] * 4


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("hosts.txt", "10.0.0.1\n10.1.0.11:22\n", "hosts.txt, line 2: '10.1.0.11:22': leave out :22"),
        ("hosts.txt", "n[1-16384]\nm\n", "line 2: more than 16,384 servers"),
        ("hosts.txt", "node[01-02] 2 10.0.0.1,10.0.0.2\n", "names 2 servers, which cannot share device_ips"),
        ("hosts.txt", "a 99999999\n", "line 1, server a: devices: '99999999': write at most 1024"),
        ("hosts.txt", "a 5-2\n", "devices: '5-2': write at most 1024, from low to high"),
        ("hosts.yaml", "hosts: [{server: [a]}]", "host 1: server is read as .*, which is no name"),
        ("hosts.yaml", "hosts: [{server: a, hccn_conf: 5}]", "host 1: hccn_conf must be the path of a file"),
        ("hosts.yaml", "hosts: [{server: a, super_device_ids: [null]}]", "must be whole numbers from 0"),
        ("hosts.yaml", "hosts: [{server: a, devices: [-1]}]", r"devices: \[-1\] must be a number of devices"),
        ("hosts.txt", b"\xbc\xaf\n", "hosts.txt, line 1: not UTF-8 text"),
        ("hosts.yaml", b"hosts: \xbc\xaf\n", "hosts.yaml, line 1: not UTF-8 text"),
        ("node.conf", b"address_0=\xbc\xaf\n", "node.conf, line 1: not UTF-8 text"),
    ],
)
def test_host_lists_that_are_refused(name, text, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    source = ["--hccn", f"10.0.0.1={path}"] if name == "node.conf" else ["--hosts", path]
    with pytest.raises(ValueError, match=words):
        run("build", *source, "--output", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_picture_takes_any_name_of_a_server(tmp_path):
    table = json.loads((SHIPPED / "8p.json").read_text("utf-8"))
    table["server_list"][0]["server_id"] = "$\\frac{a$\x1b"
    (tmp_path / "table.json").write_text(json.dumps(table), "utf-8")
    grid = ["--dp", "8", "--tp", "1", "--pp", "1"]
    assert run("draw", tmp_path / "table.json", *grid, "--output", tmp_path / "grid.png") == 0
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_that_is_written_over_is_said(tmp_path, capsys):
    out = tmp_path / "table.json"
    words = ("build", "--servers", "1", "--server-ip", "10.0.0.{server+1}", "--output", out)
    assert run(*words) == 0 and capsys.readouterr().out.rstrip().endswith("; checked")
    assert run(*words) == 0
    assert capsys.readouterr().out.rstrip().endswith("; checked, the old file is replaced")
