"""Networks trained on two corpora: the better text wins, seen lines are not scored, and a run continues."""

import json
import random
import shutil
from itertools import accumulate

import pytest

pytestmark = pytest.mark.long  # four trainings

_CHARACTERS = "天下大势分久必合周末七国争并入于秦及灭之后楚汉"
SEEN = "".join(reversed(_CHARACTERS))  # the scrambled corpus and the development set have this line


def _lines(rng, count, scrambled):
    """Walks through the characters in steps of one or two; scrambled, the same characters in any order."""
    for _ in range(count):
        start = rng.randrange(100)
        places = [start, *(start + step for step in accumulate(rng.choices((1, 2), k=29)))]
        line = "".join(_CHARACTERS[place % len(_CHARACTERS)] for place in places)
        yield "".join(rng.sample(line, len(line))) if scrambled else line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    rng = random.Random(1)
    for name, count, scrambled in (("scrambled", 150, True), ("plain", 150, False), ("held_out", 40, False)):
        lines = [*([SEEN] if name != "plain" else []), *_lines(rng, count, scrambled)]
        (folder / f"{name}.txt").write_text("\n\n".join(lines), "utf-8")
    shape = {"vocab_size": 300, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "seq_length": 16}
    (folder / "small.yaml").write_text(
        json.dumps({"model": shape, "optim": {"learning_rate": 0.02}}), "utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def compare(folder, cpu):
    """Compares with these settings changed."""
    from pangu_alpha.evaluation.corpora.networks import compare_corpora
    from pangu_alpha.evaluation.corpora.settings import CorporaConfig

    def call(**changes):
        settings = {
            "variants": {name: (str(folder / f"{name}.txt"),) for name in ("scrambled", "plain")},
            "development": (str(folder / "held_out.txt"),),
            "output": str(folder / "output"),
            "vocabulary_size": 120,
            "tokens": 16 * 4 * 200,
            "seeds": 2,
            "model": str(folder / "small.yaml"),
            "seq_length": 16,
            "batch_size": 4,
        }
        return compare_corpora(CorporaConfig(**settings | changes), "CPU")

    return call


@pytest.fixture(scope="module")
def found(compare):
    return compare()


def test_the_text_that_is_like_the_development_set_wins(found):
    assert found.better == "plain"
    assert found.gap > 0.3
    assert len(found.first.bits) == 2 and found.first.bits[0] != found.first.bits[1]


def test_a_line_that_a_corpus_has_is_not_scored(found, folder):
    assert SEEN in (folder / "held_out.txt").read_text("utf-8")
    assert found.development.seen >= 1
    assert SEEN not in (folder / "output" / "development.jsonl").read_text("utf-8")


def test_the_figures_are_written(found, folder):
    written = json.loads((folder / "output" / "comparison.json").read_text("utf-8"))
    assert written["second"]["bits"] == list(found.second.bits)


def test_an_interrupted_comparison_continues_to_the_same_figures(found, folder, compare):
    shutil.rmtree(folder / "output" / "runs" / "plain_seed_2")
    assert compare() == found


def test_other_settings_are_refused(found, compare):
    with pytest.raises(ValueError, match="holds a comparison with seq_length 16, not 8; give another"):
        compare(seq_length=8)


def test_a_development_set_of_which_nothing_is_left_is_refused(found, folder, compare):
    (folder / "seen.txt").write_text(SEEN, "utf-8")
    with pytest.raises(ValueError, match="all 1 lines of the development set are in one of the corpora"):
        compare(
            development=(str(folder / "seen.txt"),),
            output=str(folder / "other"),
            vocabulary=str(folder / "output" / "vocab.model"),
        )
