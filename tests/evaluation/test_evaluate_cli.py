"""evaluate.py perplexity: what it prints and the exit codes."""

from __future__ import annotations

import pytest

from pangu_alpha.cli.evaluate import main
from pangu_alpha.evaluation import perplexity
from pangu_alpha.evaluation.perplexity import Score

RECORDS = ["--records", "held_out", "--train-records", "train"]
WORDS = ["perplexity", "--checkpoint", "run", *RECORDS, "--device", "CPU"]


@pytest.mark.parametrize(("bigram", "code", "said"), [(5.0, 0, "wins"), (3.0, 1, "does NOT win")])
def test_the_exit_code_says_who_wins(bigram, code, said, monkeypatch, capsys):
    scores = tuple(Score(name, nats, 10, 20) for name, nats in (("it", 4.0), ("0", 8.0), ("2", bigram)))
    asked = []
    monkeypatch.setattr(perplexity, "compare_with_baselines", lambda *given: asked.append(given) or scores)
    assert main(WORDS) == code
    assert asked[0][:5] == ("run", "held_out", "train", None, 16)
    printed = capsys.readouterr().out
    assert "54.60           2.885" in printed  # e^4; 4 * 10 / (20 ln 2)
    assert f"the trained network {said}" in printed


def test_help_tells_the_exit_codes_and_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["perplexity", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "exit code: 0 the trained network wins against both; 1 it does not; 2 wrong input" in printed
    assert "sequences computed together (default: 16)" in printed
    assert "'auto' is Ascend where there is one, else CPU (default: auto)" in printed


@pytest.mark.parametrize("size", ["0", "-1", "x", "1.5", "9" * 5000])
def test_a_batch_size_that_is_none_is_refused(size, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*WORDS, f"--batch-size={size}"])
    said = capsys.readouterr().err.split("error:")[1]
    assert ended.value.code == 2 and "is not a whole number of at least 1" in said and len(said) < 200
