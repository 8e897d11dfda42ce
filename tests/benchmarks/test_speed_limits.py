"""The speed benchmarks: work counted from shapes, disturbed rounds, and shares of a limit that is one."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.network.parameters import parameter_shapes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def module(name):
    return importlib.import_module(name)


def test_flops_of_a_step_are_those_of_its_products():
    """Every product of a network of 2 layers written out: (rows, inner, columns), so often."""
    layers, hidden, vocabulary, rows, length = 2, 6, 50, 3, 5
    tokens, forward = rows * length, []
    for layer in range(layers):
        asking = length if layer == layers - 1 else tokens  # the query layer asks by position
        forward += [(asking, hidden, hidden)] + 3 * [(tokens, hidden, hidden)]
        forward += [(tokens, hidden, 4 * hidden), (tokens, 4 * hidden, hidden)]
        for place in range(length):  # scores and weighted values of a token, of those up to itself
            forward += rows * [(1, hidden, place + 1), (1, place + 1, hidden)]
    forward.append((tokens, hidden, vocabulary))
    expected = 3 * sum(2 * m * k * n for m, k, n in forward)
    assert module("work").training_flops(layers, hidden, vocabulary, rows, length) == expected


def test_flops_of_the_benchmarks_step():
    shape = module("train_speed")
    assert module("work").training_flops(
        shape.LAYERS, shape.HIDDEN, shape.VOCABULARY, shape.ROWS, shape.LENGTH
    ) == pytest.approx(144.8e9, rel=0.001)


def test_bytes_of_a_token_are_the_weights_and_the_filled_slots():
    work = module("work")
    config = ModelConfig(vocab_size=40, hidden_size=8, num_layers=2, num_heads=2, seq_length=16)
    tables = module("decode_speed").TABLES
    read = work.weight_bytes(parameter_shapes(config), tables)
    assert read == 4 * (config.parameter_count - 2 * 16 * 8 + 2 * 8)
    # The second of 3 new tokens finds 5 keys and values of 8 numbers in each of 2 layers, the third 6.
    assert work.cache_bytes(layers=2, hidden=8, prompt=5, new_tokens=3) == 4 * 2 * 2 * 8 * 5.5


def test_tables_named_by_the_benchmark_exist():
    shape = module("decode_speed").shape()
    assert set(module("decode_speed").TABLES) < set(parameter_shapes(shape))
    assert module("decode_speed").bytes_a_token(64) == pytest.approx(1373.1e6 + 18.7e6, rel=0.001)


def test_slow_rounds_are_disturbed():
    summary = module("rounds").summarize([1.0, 1.02, 5.0, 1.04, 1.3, 1.06])
    assert summary.quiet_rounds == (0, 1, 3, 5)
    assert summary.median == pytest.approx(1.03) and summary.spread == 5
    assert summary.disturbed == pytest.approx(1 / 3) and summary.quiet


def test_too_many_disturbed_rounds_are_not_quiet(capsys):
    rounds = module("rounds")
    summary = rounds.summarize([1.0, 5.0, 5.1, 1.01, 5.2, 1.0])
    assert summary.disturbed == 0.5 and not summary.quiet and summary.median == 1.0
    rounds.report({"ours": summary})
    assert "NOT QUIET: other work disturbed more than 33% of the rounds of ours" in capsys.readouterr().out
    assert rounds.verdict({"ours": summary})["quiet"] is False


def test_rounds_in_which_others_took_the_cores_are_disturbed_however_even_they_are():
    summarize = module("rounds").summarize
    seconds, others = [2.0, 2.0, 2.0, 1.9], [0.9, 0.9, 0.02, 0.03]
    assert summarize(seconds, others, threads=2, cores=2).quiet_rounds == (2, 3)
    assert summarize(seconds, others, threads=2, cores=4).quiet_rounds == (0, 1, 2, 3)
    crowded = summarize(seconds, [0.9] * 4, threads=2, cores=2)
    assert crowded.disturbed == 1 and not crowded.quiet and crowded.median == 2.0


def test_one_round_is_its_own_median():
    assert module("rounds").summarize([3.0]).median == 3.0


def test_shares_take_the_limit_around_each_round():
    """The memory becomes twice as fast half way: the share stays, that of the best limit does not."""
    rounds = module("rounds")
    limits = [1.0, 1.0, 1.0, 0.5, 0.5]  # before round 0, then after each
    found = {"ours": rounds.summarize([2.0, 2.0, 2.0, 1.0]), "peer": rounds.summarize([4.0] * 4)}
    limit = rounds.compare_with_limit(limits, 1, {"peer": found["peer"]})
    assert limit.changed == 0.25  # round 2 has 1.0 before it and 0.5 after it
    assert limit.shares["peer"] == 0.25  # the median of 1/4, 1/4 and 1/8
    assert limit.shares_of_best["peer"] == 0.125
    everything = rounds.Summary((2.0, 2.0, 2.0, 1.0), (0, 1, 3), 0.25)
    assert rounds.compare_with_limit(limits, 1, {"ours": everything}).shares["ours"] == 0.5


def test_limits_are_shared_by_several_rounds():
    rounds = module("rounds")
    found = {"ours": rounds.Summary((2.0, 2.0, 4.0), (0, 1, 2), 0.0)}
    limit = rounds.compare_with_limit([1.0, 1.1, 1.1], 2, found)  # before 0, before 2, after 2
    assert limit.changed == 0 and limit.shares["ours"] == 0.5


def test_without_a_limit_that_kept_still_there_is_no_share(capsys):
    rounds = module("rounds")
    found = {"ours": rounds.summarize([2.0, 2.0])}
    limit = rounds.compare_with_limit([1.0, 0.5, 1.0], 1, found)
    assert limit.shares == {"ours": None}
    fields = rounds.verdict(found, limit)
    assert fields["share_of_limit"] == {"ours": None} and fields["quiet"] is False
    json.dumps(fields, allow_nan=False)
    rounds.report(found, limit)
    assert "the measurements of the limit" in capsys.readouterr().out


def test_a_limit_above_a_peers_time_is_an_error():
    rounds = module("rounds")
    found = {"ours": rounds.summarize([0.098, 0.099]), "gpt2": rounds.summarize([0.102, 0.069])}
    with pytest.raises(ValueError, match=r"limit, 90\.0 ms, is above the fastest round of gpt2 \(69\.0 ms"):
        rounds.compare_with_limit([0.103, 0.09, 0.095], 1, found)


def test_programs_are_compared_round_by_round_where_both_were_quiet():
    rounds = module("rounds")
    one = rounds.Summary((1.0, 1.0, 2.0, 9.0, 2.0), (0, 1, 2, 4), 0.2)
    other = rounds.Summary((0.5, 0.8, 1.6, 1.6, 7.0), (0, 1, 2, 3), 0.2)
    assert rounds.median_ratio(one, other) == 1.25  # of 2, 1.25 and 1.25
    assert rounds.median_ratio(one, rounds.Summary((1.0,) * 5, (3,), 0.8)) is None


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_the_reader_reads_what_a_token_needs_as_often_as_there_are_tokens(monkeypatch):
    """By the way that was fastest before, which here is the fourth."""
    machine, decode_speed = module("machine"), module("decode_speed")
    calls = []

    class Counted(machine.Reader):
        def seconds(self, way):
            assert super().seconds(way) > 0
            calls.append((self.size, way))
            return 0.25 if way == self.WAYS[3] else 0.5

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(machine, "Reader", Counted)
    monkeypatch.setattr(decode_speed, "bytes_a_token", lambda new_tokens: 1e6 + new_tokens)
    run = decode_speed.make_reader(9)
    del calls[:]
    assert run() == {"seconds": 0.25}
    assert calls == 8 * [(1000009 // 2048 * 2048, Counted.WAYS[3])]


X86 = """\
processor\t: 0
cpu family\t: 26
model\t\t: 2
model name\t: AMD  EPYC
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 sse
processor\t: 1
model name\t: another
"""


def test_the_processor_is_named_with_what_matters_of_its_instruction_sets():
    describe = module("machine").describe
    assert describe(X86, 2) == {
        "processor": "AMD EPYC (family 26, model 2)",
        "cores": 2,
        "instructions": ["avx2", "avx512f", "avx512_vnni", "avx512_bf16"],
    }
    assert describe("Features\t: fp asimd sve bf16\n", 4)["instructions"] == ["asimd", "sve", "bf16"]
    assert describe("", 1)["processor"]


def test_the_best_figure_comes_with_its_name():
    best = module("machine").best
    assert best([{"a": 1.0, "others": 9.0}, {"b": 3.0, "a": 2.0}]) == (3.0, "b")


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_reading_by_streams_reads_every_byte(tmp_path):
    """The sanitizer ends the process if a stream leaves the array; reads are timed in all ways."""
    program = tmp_path / "read.cpp"
    program.write_text(
        f'#include "{BENCHMARKS / "read_speed.cpp"}"\n'
        "#include <cstdlib>\n"
        "int main() {\n"
        "  const size_t bytes = 64 * 16 * 3 * 5;\n"
        "  void* data = aligned_alloc(64, bytes);\n"
        "  for (size_t i = 0; i < bytes / 4; i++) static_cast<float*>(data)[i] = 1;\n"
        "  for (int streams : {1, 2, 4, 8, 16})\n"
        "    for (int ahead : {0, 16})\n"
        "      if (read_seconds(data, bytes, 3, streams, ahead, ahead > 0) <= 0) return 1;\n"
        "  free(data);\n"
        "}\n"
    )
    flags = ["-O1", "-g", "-std=c++17", "-pthread", "-fsanitize=address,undefined"]
    subprocess.run(["g++", *flags, str(program), "-o", str(tmp_path / "read")], check=True)
    done = subprocess.run([str(tmp_path / "read")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_a_compiler_the_reader_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"neither g\+\+ nor clang\+\+ is installed"):
        module("machine").compile_reader(str(tmp_path))


def test_a_program_is_stopped_between_rounds_and_says_what_others_used(tmp_path):
    script = tmp_path / "toy.py"
    script.write_text(
        f"import sys, time\nsys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from programs import serve\n"
        "def make():\n"
        "    if sys.argv[2] == 'broken':\n        raise SystemExit('no such library')\n"
        "    return lambda: {'seconds': time.sleep(0.05) or 0.05}\n"
        "serve(make)\n"
    )
    programs = module("programs")
    found = programs.start_all(str(script), ["good", "broken"], ["broken"], 1)
    assert [each.name for each in found] == ["good"]
    first = found[0].round()
    assert first["seconds"] == 0.05 and ("others" in first) == sys.platform.startswith("linux")
    found[0].round()
    found[0].close()
    assert found[0].summary().seconds == (0.05, 0.05)
    with pytest.raises(RuntimeError, match="broken did not start"):
        programs.start_all(str(script), ["broken"], [], 1)


def test_times_of_parts_leave_out_the_parts_inside_them(monkeypatch):
    start_up = module("start_up")
    now = iter([0.0, 1.0, 4.0, 10.0, 20.0, 25.0])  # outer begins, inner 1 to 4, outer ends; inner alone
    monkeypatch.setattr(start_up.time, "perf_counter", lambda: next(now))
    parts = start_up.Parts()
    inner = parts.timed("compiling", lambda value: value + 1)
    outer = parts.timed("building", lambda: inner(1))
    assert outer() == 2 and inner(5) == 6
    assert parts.seconds == {"compiling": 3.0 + 5.0, "building": 7.0}


def test_the_command_line_that_start_up_times_is_one(monkeypatch):
    """The public commands take these words; nothing is started."""
    from pangu_alpha.cli import predict, train

    start_up = module("start_up")
    program, *words = start_up.command(start_up.PREDICT, "unused")
    assert Path(program).exists()
    options, prompts, sampling = predict.checked(words)
    assert prompts == [start_up.PROMPT] and sampling.greedy and options.device == "CPU"
    program, *words = start_up.command(start_up.TRAIN, "folder with spaces")
    assert Path(program).exists()
    assert train._parser().parse_args(words).overrides == ["run.output=folder with spaces"]
    assert start_up.STEP.search(b"step      1/1  loss 6.2") and not start_up.STEP.search(b"step 11/20")


def test_the_time_in_steps_is_kept(monkeypatch):
    decode_speed = module("decode_speed")
    times = iter([1.0, 1.25, 2.0, 2.5])
    monkeypatch.setattr(decode_speed.time, "perf_counter", lambda: next(times))
    timed = decode_speed.Timed(lambda a, b: a + b)
    assert [timed(1, 2), timed(3, 4)] == [3, 7] and timed.seconds == 0.75
