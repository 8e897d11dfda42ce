"""plan.py: options, refusals, what it prints and writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pangu_alpha.cli.plan import command as plan
from pangu_alpha.cli.plan import dry_run, jobs, main
from pangu_alpha.cli.plan import replay as replays
from pangu_alpha.cli.plan.options import plan_parser
from pangu_alpha.cli.plan.text import size, table
from pangu_alpha.proof.checks.stages import Together
from pangu_alpha.proof.dry_run.strategy_searches import Way

TINY = (
    "model: {vocab_size: 192, hidden_size: 32, num_layers: 2, num_heads: 4, seq_length: 16, dropout: 0.0}\n"
)


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--devices 16 --dp 2 --tp 2 --pp 2 --micro-batches 2", "devices: 16, but .* = 8; dp 4 would fit"),
        ("--devices 6 --dp 2 --tp 4", "tp \\* pp = 4 does not divide 6, so no dp fits"),
        ("--dp 3 --tp 4", "3 x tp 4 x pp 1 are 12 devices; MindSpore 2.9 takes 1, 2, 4 or a multiple of 8"),
        ("--tp 8", "tp: 8 does not divide the model's 4 heads"),
        ("--dp 2 --recompute most", "recompute: 'most' is not one of"),
        ("--pp 2 --micro-batches 1", "micro_batches: 1 cannot fill 2 stages"),
        ("--dp 2 --rank 2", "rank 2 lies outside 0..1"),
        ("--dp 2 --rank-table nowhere.json", "nowhere.json"),
    ],
)
def test_impossible_plans_are_refused_before_anything_is_compiled(words, message, tiny, monkeypatch):
    monkeypatch.setattr(dry_run, "compile_rank", None)
    with pytest.raises((ValueError, OSError), match=message):
        main(["dry-run", "--model", tiny, *words.split()])


@pytest.mark.parametrize(
    "words",
    [
        "search --model tiny --cluster 910a-8 --global-batch 8 --top 0",
        "search --model tiny --cluster 910a-8 --global-batch 0",
        "search --model tiny --cluster 910a-8 --global-batch 8 --memory 0",
        "search --model tiny --cluster 910a-8 --global-batch 8 --memory nan",
        "search --model tiny --cluster 910a-8 --global-batch 8 --num-layers 0",
        "operators --model tiny --devices 0",
        "operators --model tiny --devices 4 --micro-batches 0",
        "operators --model tiny --devices 4 --batch-size 0",
        "dry-run --model tiny --num-layers 0",
        "dry-run --model tiny --servers-per-rack 0",
        "dry-run --model tiny --rank -1",
        "dry-run --model tiny --batch-size 0",
        "dry-run --model tiny --timeout 0",
        "dry-run --model tiny --dp 0",
        "dry-run --model tiny --devices 0",
        "dry-run --model tiny --pp 2 --layers-per-stage 0,2",
        "dry-run --model tiny --optimizer-threshold -1",
        "dry-run --model tiny --gradient-fusion 1.5",
        "replay --dp 2 --steps 0",
        "replay --dp 2 --num-layers 0",
        "strategies --model tiny --tp 0",
    ],
)
def test_numbers_that_make_no_sense(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        "is not a whole number of at least" in said or "is not a number above 0" in said or "finite" in said
    )


@pytest.mark.parametrize(
    ("words", "micro_batches"),
    [("--pp 2", 2), ("--pp 2 --dp 2 --tp 2", 2), ("--pp 2 --micro-batches 5", 5), ("--dp 2", 1)],
)
@pytest.mark.parametrize("command", ["dry-run", "strategies"])
def test_a_pipeline_takes_the_least_micro_batches_that_fill_it(command, words, micro_batches, tiny, capsys):
    options = plan_parser().parse_args([command, "--model", tiny, *words.split()])
    assert jobs.job_of(options).plan.micro_batches == micro_batches
    said = "--micro-batches 2: none given, so the least that fills 2 stages\n"
    assert capsys.readouterr().out == (said if micro_batches == 2 else "")


def test_a_replay_of_a_pipeline_without_micro_batches(capsys):
    options = plan_parser().parse_args(["replay", "--pp", "4", "--json"])
    ((name, job),) = replays.replayed(options).items()
    assert (name, job.plan.micro_batches) == ("pp 4, micro_batches 4", 4)
    assert capsys.readouterr() == ("", "--micro-batches 4: none given, so the least that fills 4 stages\n")


def test_micro_batches_of_a_plan_file_count(tmp_path, tiny):
    (tmp_path / "plan.yaml").write_text("parallel: {pp: 2, micro_batches: 6}\n")
    words = ["dry-run", "--model", tiny, "--plan", str(tmp_path / "plan.yaml")]
    assert jobs.plan_of(plan_parser().parse_args(words)).micro_batches == 6
    assert jobs.plan_of(plan_parser().parse_args([*words, "--micro-batches", "3"])).micro_batches == 3


def test_the_chip_of_a_plan_file_counts_and_an_option_changes_it(tmp_path, tiny):
    (tmp_path / "plan.yaml").write_text("parallel: {dp: 2}\nrun: {chip: 910A}\n")
    words = ["dry-run", "--model", tiny, "--plan", str(tmp_path / "plan.yaml")]
    assert jobs.job_of(plan_parser().parse_args(words)).chip == "910A"
    assert jobs.job_of(plan_parser().parse_args([*words, "--chip", "910C"])).chip == "910C"
    assert jobs.job_of(plan_parser().parse_args(["dry-run", "--model", tiny])).chip == "910B"
    options = plan_parser().parse_args(["replay", "--dp", "2", "--chip", "910A", "compute_dtype=float16"])
    assert [job.chip for job in replays.replayed(options).values()] == ["910A"]


@pytest.mark.parametrize(
    ("chip", "said"),
    [
        ("910A", "training products; --chip): without flash attention, overflow by the chip's float status"),
        ("910C", "A3 training products; --chip): with flash attention, overflow by inf and NaN"),
    ],
)
def test_a_dry_run_says_what_the_chip_decides(chip, said, tiny):
    options = plan_parser().parse_args(["dry-run", "--model", tiny, "--dp", "2", "--chip", chip])
    text = dry_run._chip_text(jobs.job_of(options))
    assert text.startswith(f"{chip} (Atlas") and said in text and text.endswith(", float16, jit level O0")


def test_a_chip_without_the_model_s_type_is_refused(tmp_path):
    path = tmp_path / "half.yaml"
    path.write_text(TINY.replace("dropout: 0.0", "dropout: 0.0, compute_dtype: bfloat16"))
    with pytest.raises(ValueError, match="bfloat16, but a 910A .* take float16$"):
        main(["dry-run", "--model", str(path), "--dp", "2", "--chip", "910A"])


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("parallel: {dp: 2}\nmodel: tiny\n", 2),
        ("dp: 4\n", 4),
        ("model: tiny\nrun: {steps: 1, output: o}\n", 1),  # a run's YAML without a plan is of one device
    ],
)
def test_plan_files_of_all_kinds(text, devices, tmp_path, tiny):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    words = ["dry-run", "--model", tiny, "--plan", str(path)]
    assert jobs.job_of(plan_parser().parse_args(words)).plan.devices == devices


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parallel:\n", "plan.yaml: no fields of a plan .dp, tp, pp, ...., but"),
        ("parallel: [2]\n", "plan.yaml: no fields of a plan .dp, tp, pp, ...., but"),
        ("parallel: {dp: 2}\nrun: {batch_size: many}\n", "run.batch_size is 'many'; give a whole number"),
        ("parallel: {dp: 2}\nrun: {batch_size: 0}\n", "run.batch_size is 0; give a whole number"),
        (b"parallel: \xbc\xaf\n", "plan.yaml"),
    ],
)
def test_plan_files_that_are_refused(text, words, tmp_path, tiny):
    path = tmp_path / "plan.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words):
        jobs.job_of(plan_parser().parse_args(["dry-run", "--model", tiny, "--plan", str(path)]))


def test_unknown_models_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="'2_6' is neither a file nor a shipped model; did you mean '2_6b'"):
        main(["dry-run", "--model", "2_6", "--dp", "2"])


def test_a_model_is_read_from_the_yaml_of_a_run(tmp_path):
    run = tmp_path / "run.yaml"
    run.write_text("model: {base: 350m, vocab_size: 8000}\nrun: {output: o, steps: 3}\n")
    words = ["dry-run", "--model", str(run), "--num-layers", "3", "--tp", "2"]
    job = jobs.job_of(plan_parser().parse_args(words))
    assert (job.model.hidden_size, job.model.vocab_size, job.model.num_layers) == (1024, 8000, 3)


def test_a_dry_run_prints_its_findings_and_writes_them(tiny, tmp_path, capsys):
    words = [
        "--devices",
        "2",
        "--tp",
        "2",
        "--batch-size",
        "2",
        "--rank",
        "1",
        "--output",
        str(tmp_path / "out"),
    ]
    picture = tmp_path / "sent.png"
    assert main(["dry-run", "--model", tiny, *words, "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "910B (Atlas A2 training products; --chip): with flash attention" in printed
    assert "tiny.yaml, 2 devices: dp 1, tp 2, pp 1" in printed
    assert "host peak " in printed  # of the process that compiles, not of a device
    assert " MB without initial values; within 1.5 x what it holds + 1.5 GB = 1.5" in printed
    assert "blocks.*.feed_forward.up.affine.MatMul" in printed
    assert "layers: sums over heads and feed-forward  forward" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (rank,) = report["ranks"]
    assert {"rank", "stage", "compile_seconds", "seconds", "peak_mb", "nodes", "bytes"} <= set(rank)
    assert {"placements", "strategies", "lines", "agrees"} <= set(rank)
    assert (rank["rank"], rank["agrees"], report["job"]["plan"]["tp"]) == (1, True, 2)
    keys = {
        "what",
        "operation",
        "axis",
        "group_size",
        "phase",
        "calls",
        "bytes",
        "expected_bytes",
        "wire_bytes",
    }
    assert keys | {"link", "equal"} <= set(rank["lines"][0])
    assert (tmp_path / "out" / "rank_00001" / "graph.mindir").exists()


@pytest.mark.parametrize(
    ("problems", "agrees", "code"), [((), True, 0), (("stage 1, rank 4: ...",), True, 1), ((), False, 1)]
)
def test_all_stages_are_checked_to_meet(problems, agrees, code, tiny, tmp_path, monkeypatch, capsys):
    def compile_ranks(job, ranks, *_):
        known = {"dropout": (), "agrees": agrees, "to_json": dict}
        return [SimpleNamespace(rank=rank, order=f"of {rank}", **known) for rank in ranks]

    def together(orders, mesh):
        assert (orders, mesh.size) == ({0: "of 0", 4: "of 4"}, 8)
        return Together(ranks=8, meetings=50, problems=problems, free=7)

    monkeypatch.setattr(dry_run, "compile_ranks", compile_ranks)
    monkeypatch.setattr(dry_run, "stages_with_traffic", lambda *_: "stages")
    monkeypatch.setattr(dry_run, "together", together)
    words = ["dry-run", "--model", tiny, "--dp", "2", "--tp", "2", "--pp", "2", "--all-stages"]
    assert main([*words, "--output", str(tmp_path / "out")]) == code
    printed = capsys.readouterr().out
    assert f"stages meet: {'NO' if problems else 'yes'}, 8 ranks, 50 meetings\n" in printed
    assert all(f"  {each}\n" in printed for each in problems)
    found = json.loads((tmp_path / "out" / "report.json").read_text())["together"]
    assert found == {"meet": not problems, "ranks": 8, "meetings": 50, "problems": list(problems), "free": 7}


@pytest.mark.long  # shorter than that, test_plan_text.py holds a rank's peak to its limit
def test_a_dry_run_fails_if_a_process_makes_the_whole_model(tmp_path, capsys, monkeypatch):
    """270 million parameters, of which each of 64 ranks holds a small part."""
    model = {"base": "350m", "hidden_size": 2048, "num_layers": 4, "vocab_size": 40000, "dropout": 0.0}
    file = tmp_path / "wide.yaml"
    file.write_text(json.dumps({"model": model}))
    words = ["dry-run", "--model", str(file), "--dp", "16", "--tp", "4", "--optimizer-parallel", "level1"]
    words += ["--initialize", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert "s; within 1.5 x what it holds + 1.5 GB = 1." in capsys.readouterr().out
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    job_of = jobs.job_of
    monkeypatch.setattr(
        dry_run, "job_of", lambda options: replace(job_of(options), patch="controls:draws_the_whole_model")
    )
    assert main(words) == 1
    (rank,) = json.loads((tmp_path / "out" / "report.json").read_text())["ranks"]
    assert rank["peak_mb"] * 2**20 > rank["host_limit"] == 1.5 * sum(rank["bytes"].values()) + 1.5e9
    assert not rank["agrees"] and all(line["equal"] for line in rank["lines"])
    assert "s; ABOVE 1.5 x what it holds + 1.5 GB = 1." in capsys.readouterr().out


def test_options_change_single_fields_of_a_plan(tmp_path, tiny):
    (tmp_path / "plan.yaml").write_text("{dp: 2, tp: 2, sequence_parallel: true}\n")
    words = [
        "strategies",
        "--model",
        tiny,
        "--plan",
        str(tmp_path / "plan.yaml"),
        "--tp",
        "4",
        "--devices",
        "8",
    ]
    found = jobs.job_of(plan_parser().parse_args([*words, "--recompute", "full,none", "--no-vocab-parallel"]))
    assert (found.plan.dp, found.plan.tp, found.plan.sequence_parallel) == (2, 4, True)
    assert (found.plan.recompute, found.plan.vocab_parallel) == (("full", "none"), False)


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_a_replay_that_fails_ends_with_1(passed, code, monkeypatch, capsys):
    asked = []

    class Report:
        def __init__(self, name):
            self.passed = passed or name != "dp 2, tp 2"

        def table(self):
            return f"verdict {self.passed}"

        def to_json(self):
            return {"passed": self.passed}

    def replay(name, job, folder, setting):
        asked.append((name, job.plan.tp, job.model.vocab_size, setting.steps))
        return Report(name)

    monkeypatch.setattr(replays, "replay", replay)
    assert main(["replay", "--dp", "2", "--tp", "2", "--steps", "2", "vocab_size=63"]) == code
    assert asked == [("dp 2, tp 2", 2, 63, 2)]
    assert f"verdict {passed}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "a plan of one device is what others are compared with"),
        ("--dp 2 hiden_size=8", "hiden_size: not a field of a model; did you mean 'hidden_size'"),
        ("--suite quick --dp 2", "--suite has plans of its own"),
        ("--suite quick --model tiny --dropout 0.1", "networks of its own; leave out --model, --dropout$"),
        ("vocab_size=63 --suite full --chip 910A --num-layers 3", "--num-layers, --chip, vocab_size=63$"),
    ],
)
def test_replays_that_make_no_sense_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        main(["replay", *words.split()])


def test_a_refused_way_is_shown_beside_the_others(tiny, monkeypatch, capsys):
    def try_way(way, job, folder, timeout):
        return Way(
            way, refused="" if way == "table" else "no strategy", bytes=(("weights", 8), ("moments", 16))
        )

    monkeypatch.setattr(plan, "try_way", try_way)
    assert main(["strategies", "--model", tiny, "--tp", "2", "--batch-size", "2"]) == 0
    printed = capsys.readouterr().out
    assert "recursive_programming: refused: no strategy" in printed
    assert "held: moments" in printed


def test_a_search_needs_rows_for_all_devices(tiny, monkeypatch):
    monkeypatch.setattr("pangu_alpha.proof.dry_run.strategy_searches.compile_rank", None)
    with pytest.raises(ValueError, match="batch_size: 3 rows .* use a multiple of 2"):
        main(["strategies", "--model", tiny, "--tp", "2", "--batch-size", "3"])


def test_tables_are_aligned_and_sizes_readable():
    assert table(("a", "n"), [("long", 1), ("b", 22)], right=(1,)).splitlines() == [
        "a      n",
        "--------",
        "long   1",
        "b     22",
    ]
    assert [size(count) for count in (12, 1500, 2.5e6, 3e13)] == ["12 B", "1.50 kB", "2.50 MB", "30.00 TB"]


def test_replay_takes_a_rate_of_dropout_once(capsys):
    words = ["replay", "--tp", "2", "--dropout", "0.1"]
    (job,) = replays.replayed(plan_parser().parse_args(words)).values()
    assert (job.model.dropout, job.attention_dropout) == (0.1, "positional")
    with pytest.raises(ValueError, match="--dropout and dropout= both give the rate"):
        replays.replayed(plan_parser().parse_args([*words, "dropout=0.2"]))
    with pytest.raises(SystemExit):
        plan_parser().parse_args(["replay", "--tp", "2", "--dropout", "1.5"])
    assert "argument --dropout: 1.5 must lie in [0, 1)" in capsys.readouterr().err


def test_who_draws_the_masks_of_attention_weights_is_given_or_the_plan_s(tiny, tmp_path):
    (tmp_path / "plan.yaml").write_text("parallel: {tp: 2}\nrun: {attention_dropout: device}\n", "utf-8")
    words = ["dry-run", "--model", tiny, "--plan", str(tmp_path / "plan.yaml")]
    drawn = [
        jobs.job_of(plan_parser().parse_args([*words, *more])).attention_dropout
        for more in ([], ["--attention-dropout", "positional"])
    ]
    assert drawn == ["device", "positional"]


@pytest.mark.parametrize(("passed", "verdict"), [(True, "all pass"), (False, "1 failed")])
def test_a_suite_ends_with_the_seconds_of_each_plan_and_their_sum(passed, verdict, monkeypatch, capsys):
    def replay(name, job, folder, setting):
        return SimpleNamespace(
            name=name,
            ranks=job.plan.devices,
            passed=passed or name != "dp2",
            seconds={"compile": 10.4, "run": 5.0},
            table=lambda: name,
            to_json=dict,
        )

    monkeypatch.setattr(replays, "replay", replay)
    assert main(["replay", "--suite", "quick"]) == int(not passed)
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()[-7:]]
    shown = [[word.strip() for word in row if word] for row in rows]
    assert shown[2:5] == [
        ["tp2, odd vocabulary", "2", "pass", "15"],
        ["pp2, 2 micro-batches", "2", "pass", "15"],
        ["dp2 tp2 optimizer", "4", "pass", "15"],
    ]
    assert shown[6] == ["5 plans", verdict, "77"]


def test_replay_takes_a_model_by_name():
    options = plan_parser().parse_args(
        ["replay", "--model", "tiny", "--dp", "2", "--num-layers", "3", "seq_length=16"]
    )
    (job,) = replays.replayed(options).values()
    assert (job.model.hidden_size, job.model.num_layers, job.model.seq_length) == (192, 3, 16)
    assert (job.model.dropout, job.model.compute_dtype, job.operators) == (0.0, "float32", "plain")
