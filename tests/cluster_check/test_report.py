"""Reports: what they hold, what --anonymous removes, and what compare finds."""

from __future__ import annotations

import json

import pytest
from records_of import BY_NAME, links, machine, overlap, plans, speed, startup

from pangu_alpha.__main__ import main
from pangu_alpha.cluster_check.check import Evidence, Result, judged
from pangu_alpha.cluster_check.records import write_record, write_result
from pangu_alpha.cluster_check.reporting import pictures
from pangu_alpha.cluster_check.reporting.anonymous import Anonymous
from pangu_alpha.cluster_check.reporting.compare import compared
from pangu_alpha.cluster_check.reporting.report import write_report
from pangu_alpha.cluster_check.setup import Setup

SETUP = Setup("CPU", ((0, 1),), ((0, 1),))


def test_names_and_addresses_are_replaced_everywhere_alike():
    hide = Anonymous(["node01", "node01-a.cluster.local", "10.1.2.3", "localhost"])
    text = (
        "rank 1 on node01 (node01.cluster.local, 10.1.2.3, fe80::1ff:fe23:4567:890a%eth0) failed; node01-a, "
        "mynode01 and 52:54:00:12:34:56; 127.0.0.1; version 2.9.0.1; /home/zhang/run/x.log, at 12:30:05"
    )
    found = hide.text(text)
    for secret in ("10.1.2.3", "fe80", "52:54", "zhang", "cluster.local", "on node01", "node01-a"):
        assert secret not in found, secret
    for kept in ("mynode01", "127.0.0.1", "/home/user/run/x.log", "12:30:05"):
        assert kept in found
    assert hide.text("10.1.2.3 and node01") == f"{hide.text('10.1.2.3')} and {hide.text('node01')}"
    assert hide.value({"node01": [1, "node01", None]}) == {
        hide.text("node01"): [1, hide.text("node01"), None]
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes a folder of results: two machines, and a speed of so many times the usual one.

    Pictures take a second each, so only the tests of them draw.
    """

    def make(name, times=1.0, drawn=False, **changes):
        if not drawn:
            monkeypatch.setattr(pictures, "draw", lambda out, records: [])
        out = tmp_path / name
        out.mkdir()
        SETUP.save(out)
        records = {
            "overlap": {"joined": [overlap()] * 2},
            "startup": {"cold": [startup(usual=0.25 / times)], "warm": [startup(first=1.5)]},
            "plans": {"predicted": [plans()]},
            "links": {"joined": links("server", [{1024: 1e-3, 1 << 22: 0.01}] * 2)},
            "environment": {"machine": [machine(host="gpu-7"), machine(host="gpu-8", **changes)]},
            "speed": {"device": [speed(products={"1024": 0.02 / times})]},
        }
        for check, measured in records.items():
            names = {}
            for measurement, each in measured.items():
                names[measurement] = f"checks/{check}/001/{measurement}"
                (out / names[measurement]).mkdir(parents=True)
                for rank, record in enumerate(each):
                    write_record(out / names[measurement], rank, record)
            findings = judged(BY_NAME[check], Evidence("CPU", BY_NAME[check].bounds["CPU"], measured))
            verdict = "passed" if all(each.passed for each in findings) else "failed"
            parts = dict.fromkeys(names, 0.5)
            write_result(out, Result(check, verdict, findings, seconds=31.0, records=names, parts=parts))
        tail = ("error: gpu-8 lost", "at 10.0.0.8")
        write_result(
            out,
            Result(
                "world",
                "died",
                why=f"rank 1 on gpu-8 failed first, no record in {out}",
                log="x.log",
                tail=tail,
            ),
        )
        write_report(out)
        return out

    return make


def test_a_report_names_what_did_not_pass(folder):
    out = folder("one", drawn=True, limits=machine()["limits"] | {"open files": 100})
    text = (out / "report.md").read_text("utf-8")
    assert (
        f"**5 of {len(BY_NAME)} checks passed.** Not passed: environment, world. Not run: operators," in text
    )
    assert "The checks took 3 minutes." in text and "processes: cold 0, warm 0." in text
    assert "| open files that a process may have | 100 | at least 1024 | **FAILED** |" in text
    assert "    error: gpu-8 lost" in text and "![speed.png](speed.png)" in text
    for name in ("speed", "links", "overlap", "startup", "plans"):
        assert f"![{name}.png]({name}.png)" in text
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    values = json.loads((out / "report.json").read_text("utf-8"))
    assert [each["verdict"] for each in values["checks"]][:3] == ["failed", "died", "not run"]


def test_an_anonymous_report_has_no_names(folder, capsys):
    out = folder("one")
    assert "gpu-7" in (out / "report.md").read_text("utf-8")
    assert main(["check-cluster", "report", str(out), "--anonymous"]) == 0
    for name in ("report.md", "report.json"):
        text = (out / name).read_text("utf-8")
        assert str(out) not in text and "no record in /out" in text
        assert "gpu-" not in text and "10.0.0.8" not in text and "host1" in text


def test_compare_finds_what_changed(folder, capsys):
    one, slower = folder("one"), folder("slower", times=0.5)
    assert main(["check-cluster", "compare", str(one), str(one)]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert main(["check-cluster", "compare", str(one), str(slower)]) == 0
    said = capsys.readouterr().out
    assert "speed: best product, GFLOP/s: 107.4 -> 53.7 (0.50 times)" in said
    assert "startup: cold: later steps, s: 0.25 -> 0.5 (2.00 times)" in said
    assert main(["check-cluster", "compare", str(one), str(slower / "report.json"), "--share", "0.6"]) == 0
    assert capsys.readouterr().out == "no difference\n"


def found(*findings):
    return {"checks": [{"name": "links", "verdict": "passed", "findings": list(findings)}]}


def finding(what, value, passed=True):
    return {"what": what, "value": value, "rule": "", "passed": passed}


def test_compare_names_texts_and_what_is_there_once():
    one = found(finding("slowest (3)", 1.0), finding("CANN", "8.5"), finding("loss", 2.0), finding("gone", 1))
    other = found(
        finding("slowest (5)", 1.5), finding("CANN", "9.0"), finding("loss", None), finding("new", 1)
    )
    assert list(compared(one, other, 0.1)) == [
        "links: slowest: 1 -> 1.5 (1.50 times)",
        "links: CANN: 8.5 -> 9.0",
        "links: loss: 2 -> not finite",
        "links: gone: only in the first report",
        "links: new: only in the second report",
    ]
    assert not list(compared(one, one, 0.0))


def test_records_that_cannot_be_drawn_do_not_end_the_report(folder, monkeypatch):
    kept = {name: pictures._PAINTED[name] for name in ("overlap", "startup")}
    monkeypatch.setattr(pictures, "_PAINTED", kept)
    out = folder("one", drawn=True)
    (record,) = (out / "checks" / "startup" / "001" / "cold").glob("rank_*.json")
    record.write_text('{"started": null, "first": "?"}')
    write_report(out)
    text = (out / "report.md").read_text("utf-8")
    assert "![overlap.png]" in text and "![startup.png]" not in text and not (out / "startup.png").exists()


def test_records_that_cannot_be_read_do_not_end_the_report(folder):
    out = folder("one")
    for record in (out / "checks").glob("*/001/*/rank_0000.json"):
        record.write_text("{")
    write_report(out)
    assert "checks passed" in (out / "report.md").read_text("utf-8")


def test_compare_ends_with_1_if_something_passes_no_longer(folder, capsys):
    one, worse = folder("one"), folder("worse", limits=machine()["limits"] | {"open files": 100})
    assert main(["check-cluster", "compare", str(one), str(worse)]) == 1
    assert "environment: passed -> failed" in capsys.readouterr().out
    assert main(["check-cluster", "compare", str(worse), str(one)]) == 0


def test_a_folder_of_another_set_up_is_refused(folder):
    out = folder("one")
    with pytest.raises(ValueError, match=r"another set-up \(other: device\); name a new folder"):
        Setup("Ascend", SETUP.nodes, SETUP.devices).save(out)
    SETUP.save(out)
    assert Setup.load(out) == SETUP


@pytest.mark.parametrize("content", ["[]", '{"checks": 1}'])
def test_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is no report of check-cluster"):
        main(["check-cluster", "compare", str(path), str(path)])
    with pytest.raises(ValueError, match="no setup.json"):
        main(["check-cluster", "report", str(tmp_path)])
