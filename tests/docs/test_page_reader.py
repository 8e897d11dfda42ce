"""What the helpers make of a page: blocks, commands, outputs, and what a command line names."""

from __future__ import annotations

import pytest
from page_commands import Call, calls, is_usage, option_names, parsed, paths, simple_commands
from page_folder import Folder, missing_lines, small
from page_reader import prose, spans, steps

PAGE = """\
# A page

```bash
python src/train.py --config run.yaml run.steps=2   # a comment, 2 s
cat >other.yaml <<'END'
model: tiny      # stays
END
python src/predict.py --checkpoint runs/mine \\
    --prompt "a # b"

# only a comment
```

```text
step 1
```

- a list

  ```yaml
  # file: run.yaml
  model: tiny
  ```

```yaml
model: shown only
```

<!-- not run by the tests: needs 8 NPUs -->
```bash
bash run_scripts/run_distribute_train.sh --config run.yaml
```

As `python src/plan.py
search --model tiny` says, `x`.

    $ python src/checkpoint.py inspect run
    run
      model
    $ ls
    a

no command
"""


def test_steps_in_their_order():
    assert [(step.kind, step.name or step.text.split()[0], step.line) for step in steps(PAGE)] == [
        ("command", "python", 4),
        ("command", "cat", 5),
        ("command", "python", 8),
        ("file", "run.yaml", 21),
        ("command", "bash", 31),
        ("command", "python", 37),
        ("command", "ls", 40),
    ]


def test_texts_outputs_and_reasons():
    train, cat, predict, file, launch, inspect, listed = steps(PAGE)
    assert train.text == "python src/train.py --config run.yaml run.steps=2" and not train.reason
    assert cat.text == "cat >other.yaml <<'END'\nmodel: tiny      # stays\nEND"
    assert predict.text.endswith('--prompt "a # b"') and predict.output == "step 1"
    assert file.text == "# file: run.yaml\nmodel: tiny\n"
    assert launch.reason == "needs 8 NPUs"
    assert inspect.output == "run\n  model\n" and listed.output == "a\n"


def test_spans_of_the_prose_alone():
    assert list(spans(PAGE)) == [(34, "python src/plan.py search --model tiny"), (35, "x")]
    assert "other.yaml" not in prose(PAGE) and prose(PAGE).count("\n") == PAGE.count("\n")


def test_simple_commands_of_a_line():
    line = "A=1 nohup python src/train.py --config a.yaml >log 2>&1 && ls | head -1"
    assert list(simple_commands(line)) == [
        "A=1 nohup python src/train.py --config a.yaml".split(),  # noqa: SIM905
        ["ls"],
        ["head", "-1"],
    ]
    assert calls(line) == [Call("train", ["--config", "a.yaml"])]


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("pangu-alpha merge-checkpoint a b", "merge-checkpoint"),
        ("python -m pangu_alpha launch train --config a", "launch train"),
        ("python -m pangu_alpha.cli.rank_table check a", "rank-table"),
        ("bash run_scripts/run_standalone_predict.sh --prompt a", "predict"),
        ("bash run_scripts/run_distribute_predict.sh --prompt-file a", "launch predict"),
        ("bash run_scripts/quickstart.sh", ""),
        ("python benchmarks/merge_speed.py", "benchmarks/merge_speed.py"),
    ],
)
def test_programs(line, program):
    assert [call.program for call in calls(line)] == [program]


def test_a_program_that_is_not_there_is_found():
    with pytest.raises(AssertionError, match="there is no program tran"):
        calls("python src/tran.py")


@pytest.mark.parametrize(
    "line",
    [
        "python src/train.py --config a.yaml --no-such-option",
        "python src/plan.py search --model tiny --cluster 910a-8",  # lacks --global-batch
        "python src/plan.py dry-run --model tiny --dp 0",
        "bash run_scripts/run_distribute_train.sh --config a.yaml --nproc x",
        "bash run_scripts/run_distribute_train.sh --config a.yaml --no-such-option",
        "bash run_scripts/run_distribute_predict.sh --prompt-file a --no-such-option",
    ],
)
def test_a_line_that_its_program_would_refuse(line):
    (call,) = calls(line)
    with pytest.raises(AssertionError):
        parsed(call)


def test_what_a_line_reads_and_writes():
    def of(line):
        return paths(*calls(line))

    assert of("python src/merge_checkpoint.py a b") == (["a"], ["b"])
    search = "python src/plan.py search --model 2_6b --cluster 910a-8 --global-batch 8 --out d"
    assert of(search) == ([], ["d"])
    assert of("python src/train.py --config a.yaml --resume auto run.output=o") == (["a.yaml"], ["o"])
    read, written = of("bash run_scripts/run_distribute_train.sh --config a.yaml --log-dir l")
    assert (read, written) == (["a.yaml"], ["l"])


def test_lines_that_show_a_form():
    assert is_usage("python src/plan.py search [--out DIR]") and is_usage("python a.py x | y | z  (--help)")
    assert not is_usage("python src/train.py --config 'a[0].yaml' | tee log")
    assert {"--out", "--suite"} <= option_names("plan")


def test_words_are_added_in_front_of_what_the_shell_reads():
    assert small("python a.py x | tee log", "--size 3", ()) == "python a.py x --size 3 | tee log"
    assert small("python a.py x >log", "y", (("x", "z"),)) == "python a.py z y >log"
    with pytest.raises(AssertionError, match="has no"):
        small("python a.py", "", (("x", "z"),))


def test_lines_of_an_output():
    printed = "wrote a in 3.4 s\nloss 8.31\nnothing\nlast 7"
    assert missing_lines("wrote a in 1.2 s\n...\nlast 7", printed, exact=True) == []
    assert missing_lines("loss 8.30\nlast ...", printed, exact=True) == ["loss 8.30"]
    assert missing_lines("loss 8.30\nlast ...", printed, exact=False) == []
    assert missing_lines("last 7\nloss 8.31", printed, exact=True) == ["loss 8.31"]


def test_a_folder_like_a_checkout(tmp_path):
    folder = Folder(tmp_path / "x")
    assert folder.run("export A=3", 60).code == 0
    done = folder.run("python -c 'import os, sys; print(os.environ[\"A\"]); sys.exit(4)' | cat", 60)
    assert (done.code, done.text) == (4, "3\n")
    assert folder.has("src/train.py") and folder.has("model_zoo/*.yaml") and not folder.has("run.yaml")
    assert folder.run_python("open('made', 'w').write('1')", 60).code == 0 and folder.has("made")
