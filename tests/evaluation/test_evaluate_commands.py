"""evaluate.py list, compare and contamination; and what the command line refuses."""

from __future__ import annotations

from datetime import datetime

import pytest
from oracles import Knowing, Network, plans_of

from pangu_alpha.cli.evaluate import main
from pangu_alpha.cli.evaluate.contamination import texts_of
from pangu_alpha.evaluation.running.execute import run_plans
from pangu_alpha.evaluation.running.finish import write_all_results
from pangu_alpha.evaluation.tasks.catalog import load_tasks


def test_list_says_where_files_are_looked_for(eval_data, tmp_path, capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "tnews_all" in printed and "published at CLUEbenchmark/FewCLUE" in printed
    assert main(["list", "--data", str(eval_data)]) == 0
    assert str(eval_data / "c3" / "c3-d-dev.json") in capsys.readouterr().out


def test_two_models_are_compared(eval_data, tmp_path, capsys):
    plans = plans_of(eval_data, ["ocnli", "cmrc2018"])
    for name, network in (("a", Network()), ("b", Knowing(plans))):
        run_plans(network, plans, tmp_path / name)
        write_all_results(tmp_path / name, plans, {"checkpoint": name}, datetime(2026, 1, 1))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert "ocnli_paper_0shot_seed0" in printed and "mcnemar" in printed and "100.00" in printed


def test_the_texts_that_are_looked_for(eval_data):
    tasks = load_tasks()

    def texts(name):
        items = plans_of(eval_data, [name])[0].data.items
        return texts_of(tasks[name], items)

    assert texts("cmrc2018")[0] == (
        "D0_Q0",
        {"question": "何时建成？1950年", "passage": "该桥建于1950年，全长000米。银行今天下调了利率。"},
    )
    assert texts("cluewsc2020")[0][1] == {"question": "小王没来，因为他病了"}
    assert "一日千里" in texts("fewclue_chid")[0][1]["question"]
    assert [name for name, _ in texts("cmrc2019")] == ["DEV_0", "DEV_1", "DEV_2", "DEV_3"]
    assert texts("tnews")[0][1] == {"question": "银行今天下调了利率，0号"}


@pytest.mark.parametrize("word", ["--checkpoint", "--records"])
def test_the_former_command_line_is_refused_with_its_new_name(word):
    with pytest.raises(ValueError, match=f"name the command first: `evaluate.py perplexity {word}"):
        main([word, "x"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shots", "0,x"], "--shots: 'x' is not a whole number"),
        (["--shots", "1,1"], "--shots: '1,1' names a number twice"),
        (["--tasks", "a,,b"], "--tasks: 'a,,b' has an empty word"),
        (["--share", "2/2"], "--share: '2/2' is no part; write it as 0/4"),
        (["--scoring", "mean"], "--scoring: invalid choice: 'mean'"),
    ],
)
def test_wrong_words_are_refused(words, said, capsys):
    with pytest.raises(SystemExit):
        main(["tasks", "--checkpoint", "c", "--data", "d", "--tasks", "x", *words])
    assert said in capsys.readouterr().err


def test_the_results_need_a_folder():
    with pytest.raises(ValueError, match="--output: name the folder of the results"):
        main(["tasks", "--checkpoint", "c", "--data", "d", "--tasks", "ocnli"])
