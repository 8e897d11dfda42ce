"""plan.py search: exit codes, what it prints and writes, and that training takes it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pangu_alpha.cli import run_main
from pangu_alpha.cli.plan import command as plan
from pangu_alpha.cli.plan import jobs, main
from pangu_alpha.cli.plan.options import plan_parser
from pangu_alpha.cluster.placement import Placement, permute
from pangu_alpha.cluster.tables.rank_table import read
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import build_train_config
from pangu_alpha.config.schema import build, merge
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks.stages import Together

MODEL = "{vocab_size: 40000, hidden_size: 1024, num_layers: 4, num_heads: 8, seq_length: 1024}"
SHIPPED = Path(__file__).parents[3] / "rank_tables"
PIPELINE = ["tp=2", "pp=4", "dp=4", "order=tp,pp,dp"]  # not as MindSpore's ranks run


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(f"model: {MODEL}\n")
    return str(path)


@pytest.fixture
def search(small):
    def run(*words, cluster="910a-8", batch=16):
        given = ["--model", small, "--cluster", cluster, "--global-batch", str(batch), "--top", "2"]
        return main(["search", *given, *map(str, words)])

    return run


def test_the_best_plans_are_told(search, capsys):
    assert search() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("910a-8: 8 x 910A, batch 16\nbest: ")
    assert " tokens/s; no plan is " in printed and "what it loses by" in printed
    assert "The best plan with one decision changed" in printed
    assert "Memory of a device, GiB" in printed
    assert "No plan would be faster with more memory." in printed


def test_without_a_plan_the_nearest_questions_are_told(search, capsys):
    assert search(cluster="910a-7") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second, *ways = printed.err.splitlines()
    assert first == "error: no plan: cluster: 7 devices: MindSpore 2.9 takes 1, 2, 4 or a multiple of 8"
    assert second == "nearest possible:"
    assert [line.split(":")[0].strip() for line in ways] == ["4 devices", "8 devices"]
    assert all(line.endswith(" s a step") for line in ways)


def test_a_device_that_is_too_small(search, capsys):
    assert search("--memory", "5", cluster="910a-1", batch=4) == 1
    printed = capsys.readouterr().err
    assert "the model does not fit: a device needs at least" in printed and "may use 5.0" in printed
    assert "  2 devices: dp" in printed


def test_what_is_fixed_may_be_impossible(search, capsys):
    assert search("--fix", "dp=8", "micro_batches=4") == 1
    assert "batch: 16 sequences cannot be divided over 8 devices" in (said := capsys.readouterr().err)
    assert "  batch 32: dp 8, tp 1, pp 1, 4 micro-batches of 1, " in said
    assert "  dp, micro_batches left free: dp" in said


@pytest.mark.parametrize(
    ("words", "cluster", "message"),
    [
        ("--fix stages=2", "910a-8", "fixed: stages cannot be fixed"),
        ("--fix order=tp,dp", "910a-8", "fixed: order: ('tp', 'dp') must name tp, dp and pp once each"),
        ("--fix tp=0", "910a-8", "fixed: tp: 0 must be a whole number of at least 1"),
        ("--fix tp=true", "910a-8", "fixed: tp: True must be a whole number of at least 1"),
        (
            "--fix recompute=[none]",
            "910a-8",
            "fixed: recompute: ['none'] must be one of none, selective, full",
        ),
        ("--fix optimizer_parallel=level9", "910a-8", "must be one of none, level1, level2, level3"),
        ("--fix sequence_parallel=1", "910a-8", "sequence_parallel: 1 must be one of true, false"),
        ("", f"910a-{2**20 + 8}", "1048584 devices; give at least 1, at most 1,048,576"),
        ("--pictures", "910a-8", "name their folder with --output DIR"),
        ("--verify", "910a-8", "name their folder with --output DIR"),
        ("--stack mindspor", "910a-8", "did you mean 'mindspore'"),
        ("", "920a-8", "write FAMILY-COUNT"),
        ("", str(SHIPPED / "8p.json"), "add --levels with a family"),
        ("", "nowhere.json", "nowhere.json"),
    ],
)
def test_wrong_options_end_with_2(words, cluster, message, search, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["plan.py"])
    with pytest.raises(SystemExit) as ended:
        run_main(lambda _: search(*words.split(), cluster=cluster))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_fixed_may_be_impossible_on_some_grids(search, capsys):
    assert search("--fix", "sequence_parallel=true") == 0  # not with tp 1
    assert "1 problem" not in capsys.readouterr().err


def test_json_is_the_same_as_the_written_report(search, tmp_path, capsys):
    assert search("--json", "--front", "--output", tmp_path / "out") == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    answer = report["answer"]
    assert (answer["cluster"], answer["batch"], len(answer["best"])) == ("910a-8", 16, 2)
    assert answer["least"] <= answer["best"][0]["seconds"] <= answer["best"][1]["seconds"]
    assert build(ParallelPlan, answer["best"][0]["plan"]).devices == 8
    assert [each["memory"] for each in report["front"]] == sorted(each["memory"] for each in report["front"])


@pytest.fixture
def written(search, tmp_path, capsys):
    """Folder and words of a search whose best plan has a pipeline and a placement of its own."""
    words = ["--fix", *PIPELINE, "--output", tmp_path / "out"]
    table = ["--levels", "910a"]
    assert search(*words, *table, cluster=str(SHIPPED / "32p_4x2x4.json"), batch=64) == 0
    return tmp_path / "out", capsys.readouterr().out


def test_training_takes_the_plan(written):
    values = yaml.safe_load((written[0] / "plan.yaml").read_text())
    assert set(values) == {"parallel", "run"}
    own = {
        "model": yaml.safe_load(MODEL),
        "data": {"train": {"a": {"records": "r"}}},
        "run": {"output": "o", "steps": 3},
    }
    config = build_train_config(merge(own, values))
    assert (config.parallel.dp, config.parallel.tp, config.parallel.pp) == (4, 2, 4)
    assert config.samples_per_step == 64


def test_the_dry_run_takes_the_plan(written, small):
    path = str(written[0] / "plan.yaml")
    options = plan_parser().parse_args(["dry-run", "--model", small, "--plan", path, "--all-stages"])
    found = jobs.plan_of(options)
    assert found == build(ParallelPlan, yaml.safe_load(Path(path).read_text())["parallel"])
    assert found.devices == 32


def test_a_rank_table_comes_back_placed(written):
    folder, printed = written
    given, placed = read(SHIPPED / "32p_4x2x4.json"), read(folder / "rank_table.json")
    placement = Placement.parse("server=dp device=pp,tp")
    assert placed == permute(given, Mesh(dp=4, tp=2, pp=4), placement, 4)
    assert "rank_table.json: ranks where the plan wants them" in printed


def test_without_a_rank_table_its_command_is_told(search, tmp_path, capsys):
    assert search("--fix", *PIPELINE, "--output", tmp_path, cluster="910a-32", batch=64) == 0
    printed = capsys.readouterr().out
    assert "To launch it (run.yaml is your run" in printed and f"--output {tmp_path}/servers.json" in printed
    assert (
        f"rank_table.py permute {tmp_path}/servers.json --chip 910A --dp 4 --tp 2 --pp 4 "
        f"--servers-per-rack 4 --placement 'rack= server=dp device=pp,tp' --output {tmp_path}/rank_table.json"
    ) in printed
    assert not (tmp_path / "rank_table.json").exists()


def test_a_plan_of_yours_is_ranked(search, tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    mine.write_text("parallel: {dp: 2, tp: 4, recompute: full}\n")
    assert search("--compare", mine) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(str(mine)))
    assert "order tp,dp,pp:" in line and "(fits); place " in line
    assert "loses by tensor parallel +" in line


@pytest.mark.parametrize(
    ("plan", "orders"),
    [
        ("dp: 2, tp: 4", ["tp,dp,pp"]),
        ("dp: 2, tp: 2, pp: 2, micro_batches: 4", ["tp,dp,pp", "tp,pp,dp"]),
    ],
)
def test_orders_that_differ_in_axes_of_one_device_are_one(plan, orders, search, tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"parallel: {{{plan}}}\n")
    assert search("--compare", mine) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(mine))]
    assert [line.split("order ")[1].split(":")[0] for line in lines] == orders


def test_the_yaml_of_a_run_on_one_device_is_a_plan_of_one(search, tmp_path, capsys):
    mine = tmp_path / "run.yaml"
    mine.write_text("model: tiny\nrun: {output: o, steps: 1}\n")
    assert search("--compare", mine, cluster="910a-1", batch=4) == 0
    assert f"{mine}, order tp,dp,pp:" in capsys.readouterr().out


def test_a_plan_of_yours_that_does_not_suit_is_refused(search, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("parallel: {pp: 8, micro_batches: 8}\n")
    with pytest.raises(ValueError, match="pp: 8 stages for 4 layers"):
        search("--compare", mine)


@pytest.mark.parametrize(
    ("plan", "said"), [("{dp: 1}", "pp 1 = 1 device,"), ("{dp: 3, tp: 4}", "tp 4 \\* pp 1 = 12 devices,")]
)
def test_a_plan_of_another_number_of_devices_is_refused(plan, said, search, tmp_path, monkeypatch):
    monkeypatch.setattr("pangu_alpha.cli.plan.search.search", None)  # refused before it is searched
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"parallel: {plan}\n")
    with pytest.raises(ValueError, match=f"mine.yaml: dp .* {said} the cluster has 8"):
        search("--compare", mine)


def test_pictures_are_drawn(search, tmp_path):
    assert search("--pictures", "--output", tmp_path, cluster="910a-4", batch=4) == 0
    for name in ("timeline", "parts", "front"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("agrees", "problems", "words"),
    [(True, (), ()), (False, (), ()), (True, (), ("--json",)), (True, ("rank 0 waits",), ())],
)
def test_verification_decides_the_exit_code(agrees, problems, words, search, tmp_path, capsys, monkeypatch):
    compiled = []

    def compile_ranks(job, ranks, *_):
        compiled.append((job.plan, ranks))
        return [
            SimpleNamespace(agrees=each, rank=rank, order=f"of rank {rank}")
            for each, rank in zip((True, agrees), ranks, strict=True)
        ]

    def together(orders, mesh):
        assert (orders, mesh.size) == ({0: "of rank 0", 4: "of rank 4"}, 8)
        return Together(ranks=8, meetings=50, problems=problems, free=0)

    monkeypatch.setattr(plan, "together", together)
    monkeypatch.setattr(plan, "compile_ranks", compile_ranks)
    monkeypatch.setattr(plan, "stages_with_traffic", lambda *_: "stages")
    asked = ("--fix", "pp=2", "dp=2", "tp=2", "--verify", "--output", tmp_path)
    good = agrees and not problems
    assert search(*asked, *words) == int(not good)
    ((found, ranks),) = compiled
    assert (found.pp, ranks) == (2, [0, 4])  # the first rank of every stage
    printed = capsys.readouterr()
    told = printed.err if words else printed.out
    assert f"verified: {'yes' if good else 'NO'}" in told
    assert f"stages meet: {'NO' if problems else 'yes'}, 8 ranks, 50 meetings" in told
    assert not words or json.loads(printed.out)["answer"]["grids"] == 3
