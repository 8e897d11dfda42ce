"""checkpoint.py: what it prints and the exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.native.format import Manifest, compare_tensors, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, UnclearError
from pangu_alpha.cli.checkpoint import main
from pangu_alpha.config.schema import to_mapping

SCRIPT = Path(__file__).parents[2] / "src" / "checkpoint.py"


@pytest.fixture
def run(checkpoint_of_ours, tmp_path):
    """A run's folder with two checkpoints of weights."""
    for step in (5, 10):
        shutil.copytree(checkpoint_of_ours, tmp_path / f"run/checkpoints/step_{step:08d}")
    return tmp_path / "run"


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_inspect_says_what_it_is(run, capsys):
    assert main(["inspect", str(run), "--tensors"]) == 0
    shown = capsys.readouterr().out
    for words in ("weights in one file", "L 3, H 64, N 4, V 1000, S 32", "218,176", "step 12", "model norms"):
        assert words in shown
    line = next(line for line in shown.splitlines() if "query_layer.feed_forward.down.weight" in line)
    assert "[64, 256]" in line and "float32" in line


def test_inspect_as_json_with_a_plan(ours, tmp_path, capsys):
    from pangu_alpha.config.model import ModelConfig

    model = to_mapping(ModelConfig(vocab_size=1000, hidden_size=64, num_layers=3, num_heads=4, seq_length=32))
    moments = {f"adam_{m}.{name}": array for m in "mv" for name, array in ours.items()}
    manifest = Manifest(7, 99, {"model": model, "parallel": {"dp": 1, "tp": 1}}, "abc")
    write_checkpoint(tmp_path / "full", {"model": ours, "optimizer": moments}, manifest)
    assert main(["inspect", str(tmp_path / "full"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["samples"], found["tokenizer"]) == (7, 99, "abc")
    assert found["bytes"] == 3 * 4 * found["parameters"] and found["plan"] == {"dp": 1, "tp": 1}
    assert sum(group["tensors"] for group in found["groups"]) == 3 * len(ours)
    assert "tensors" not in found


def test_diff_exits_with_1_where_there_are_differences(run, ours, tmp_path, capsys):
    model = json.loads((run / "checkpoints/step_00000010/manifest.json").read_text())["config"]
    other = {**ours, "final_norm.beta": ours["final_norm.beta"] + np.float32(0.5)}
    write_checkpoint(tmp_path / "other", {"model": other}, Manifest(1, 0, model))
    assert main(["diff", str(run), str(run / "checkpoints/step_00000005"), "--quiet"]) == 0
    assert "the same" in capsys.readouterr().out
    words = ["diff", str(run), str(tmp_path / "other"), "--quiet"]
    assert main(words) == 1
    assert "values: final_norm.beta: 64 of 64 elements, largest 0.5" in capsys.readouterr().out
    assert main([*words, "--tolerance", "0.51"]) == 0


def test_verify_names_the_damaged_of_a_run(run, capsys):
    assert main(["verify", str(run), "--quiet"]) == 0
    assert capsys.readouterr().out.count("every checksum fits") == 2
    flip(run / "checkpoints/step_00000010/model.safetensors")
    assert main(["verify", str(run), "--quiet"]) == 1
    shown = capsys.readouterr().out
    assert "step_00000010: damaged:" in shown and "expected xxh3_128" in shown
    assert "step_00000005: whole" in shown
    flip(run / "checkpoints/step_00000005/manifest.json")
    assert main(["verify", str(run / "checkpoints/step_00000005")]) == 1
    assert "COMPLETE says" in capsys.readouterr().out


def test_verify_does_not_call_damaged_what_is_no_checkpoint(run, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("model: 13b\n")
    (tmp_path / "data").mkdir()
    for name in ("run.yaml", "data"):
        with pytest.raises(CheckpointError, match=f"{name}: no checkpoint of a known form"):
            main(["verify", str(tmp_path / name)])
    (tmp_path / "cut.ckpt").write_bytes(b"\x0a\xff")
    (run / "checkpoints/step_00000010/COMPLETE").unlink()
    for path in (tmp_path / "cut.ckpt", run / "checkpoints/step_00000010"):
        assert main(["verify", str(path)]) == 1
        assert capsys.readouterr().out.startswith(str(path))


def test_verify_does_not_call_damaged_what_wants_an_option(run, tmp_path, model_yaml):
    made = str(tmp_path / "made.ckpt")
    assert main(["export", str(run), made, "--to", "ckpt", "--quiet"]) == 0
    with pytest.raises(UnclearError, match="name the model with --model"):
        main(["verify", made])
    assert main(["verify", made, "--model", model_yaml]) == 0


@pytest.mark.parametrize("tolerance", ["nan", "-1", "little"])
def test_a_tolerance_is_a_number(run, tolerance, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["diff", str(run), str(run), "--tolerance", tolerance])
    assert "argument --tolerance: " in capsys.readouterr().err


def test_export_and_look_at_it(run, tmp_path, capsys, model_yaml):
    made = tmp_path / "made.ckpt"
    words = ["export", str(run), str(made), "--to", "ckpt", "--dtype", "float16", "--quiet"]
    assert main(words) == 0
    assert "made.ckpt: written" in capsys.readouterr().out
    assert main(["diff", str(run), str(made), "--model", model_yaml, "--quiet", "--tolerance", "0.01"]) == 0
    assert main(["inspect", str(made), "--model", model_yaml]) == 0
    assert "float16" in capsys.readouterr().out


def test_every_other_form(run, tmp_path, model_yaml):
    plan = tmp_path / "plan.yaml"
    plan.write_text("parallel: {dp: 1, tp: 2}\n")
    for form, extra in (
        ("huggingface", []),
        ("megatron", []),
        ("mindspore", ["--plan", str(plan), "--official-names"]),
        ("unified", []),
    ):
        made = str(tmp_path / f"{form}.safetensors")
        assert main(["export", str(run), made, "--to", form, "--quiet", *extra]) == 0
        assert main(["diff", str(run), made, "--model", model_yaml, "--quiet"]) == 0


@pytest.mark.parametrize(("form", "suffix"), [("megatron", ".safetensors"), ("ckpt", ".ckpt")])
def test_a_file_gets_a_name_by_which_it_is_opened_again(form, suffix, run, tmp_path, model_yaml):
    with pytest.raises(CheckpointError, match=f"made: give a name that ends with {suffix}"):
        main(["export", str(run), str(tmp_path / "made"), "--to", form, "--quiet"])
    assert not (tmp_path / "made").exists()
    made = str(tmp_path / f"made{suffix}")
    assert main(["export", str(run), made, "--to", form, "--quiet"]) == 0
    assert main(["inspect", made, "--model", model_yaml]) == 0


def test_errors_reach_the_exit_code(run, tmp_path):
    for words in (["inspect", str(tmp_path / "absent")], ["verify", str(tmp_path / "absent")],
                  ["verify", str(tmp_path)],
                  ["export", str(run), str(run), "--to", "huggingface"]):  # fmt: skip
        done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_control_characters_of_a_checkpoint_never_reach_the_terminal(ours, tmp_path, capsys):
    from pangu_alpha.config.model import ModelConfig

    model = to_mapping(ModelConfig(vocab_size=1000, hidden_size=64, num_layers=3, num_heads=4, seq_length=32))
    strange = ours | {"surplus\x1b[2J\n\u202e": np.zeros(2, np.float32)}
    write_checkpoint(tmp_path / "one", {"model": ours}, Manifest(1, 1, {"model": model}, "\x1b[31m"))
    write_checkpoint(tmp_path / "two", {"model": strange}, Manifest(1, 1, {"model": model}, "\x9b31m"))
    seen = r"surplus\x1b[2J\n\u202e"
    assert main(["inspect", str(tmp_path / "two"), "--tensors"]) == 0
    assert main(["diff", str(tmp_path / "one"), str(tmp_path / "two"), "--quiet"]) == 1
    lines = capsys.readouterr().out
    assert lines.count(seen) == 2 and r"\x9b31m" in lines
    assert main(["inspect", str(tmp_path / "two"), "--tensors", "--json"]) == 0
    text = capsys.readouterr().out
    assert "surplus\x1b[2J\n\u202e" in json.loads(text)["tensors"]["model"]
    path = tmp_path / "two/model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"surplus", b"surplux"))
    assert main(["verify", str(tmp_path / "two"), "--quiet"]) == 1
    lines += text + capsys.readouterr().out
    assert not set("\x1b\x9b\u202e") & set(lines)


def test_a_checkpoint_that_says_no_model_is_refused_in_words(ours, tmp_path):
    write_checkpoint(tmp_path / "one", {"model": ours}, Manifest(1, 1, {}))
    with pytest.raises(CheckpointError, match="one: it does not say which model it is of"):
        main(["inspect", str(tmp_path / "one")])


def test_a_list_of_thousands_of_tensors_is_cut():
    found = {f"x{number}": ((1,), None) for number in range(20_000)}
    with pytest.raises(CheckpointError, match="20000 tensors do not fit the 0 expected") as error:
        compare_tensors({}, found, "here")
    assert len(str(error.value).splitlines()) == 102 and "and 19,900 more" in str(error.value)
