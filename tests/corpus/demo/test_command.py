from __future__ import annotations

import pytest

from pangu_alpha.cli.corpus.command import main
from pangu_alpha.corpus.rules import RULE_NAMES


def test_demo_builds_checks_and_says_so(tmp_path, capsys):
    assert main(["demo", str(tmp_path), "--small", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "0 of 65 planted pages are wrong" in out
    assert "corpus.yaml" in out
    assert main(["demo", str(tmp_path), "--small", "--workers", "1"]) == 0  # what is there is kept


def test_rules_are_listed(capsys):
    assert main(["list-rules"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in RULE_NAMES)


def test_no_folder_is_refused():
    with pytest.raises(SystemExit):
        main(["demo"])
