from __future__ import annotations

import os
from pathlib import Path

import pytest

from pangu_alpha.text.corpora import default_directory
from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.text.vocabulary import train_vocabulary

SENTENCES = """话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。
及秦灭之后，楚、汉分争，又并入于汉。汉朝自高祖斩白蛇而起义，一统天下。
后来光武中兴，传至献帝，遂分为三国。推其致乱之由，殆始于桓、灵二帝。
桓帝禁锢善类，崇信宦官。及桓帝崩，灵帝即位，大将军窦武、太傅陈蕃共相辅佐。
时有宦官曹节等弄权，窦武、陈蕃谋诛之，机事不密，反为所害，中涓自此愈横。
Hello world, PanGu 2021: 1.5 + 2 = 3.5 <eod> and more."""


@pytest.fixture(scope="session")
def released() -> PanguTokenizer:
    """The tokenizer of the release, where its vocabulary has been fetched beforehand."""
    path = Path(os.environ.get("PANGU_VOCAB") or default_directory() / "vocab.model")
    if not path.is_file():
        pytest.skip("no released vocabulary; `python -m pangu_alpha.cli.fetch vocab` gets it")
    return PanguTokenizer(path)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> PanguTokenizer:
    """A tokenizer trained on a few sentences."""
    return train_vocabulary([SENTENCES], tmp_path_factory.mktemp("vocabulary") / "small.model", 150)
