"""The tables of docs/configuration.md are those of the declarations; the runs that pages show are valid."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import get_args, get_origin

import pytest

from pangu_alpha.cli.keys import main, with_tables
from pangu_alpha.config.corpus import CorpusConfig
from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.config.keys import keys_of
from pangu_alpha.config.option import option_of
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import RunConfig, TrainConfig, build_train_config
from pangu_alpha.config.schema import field_types, parse_yaml
from pangu_alpha.config.serve import ServeConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/configuration.md").read_text("utf-8")
REMEDY = "python -m pangu_alpha.cli.keys --write docs/configuration.md"


def keys_on(page: str) -> list[str]:
    """The first cells of the rows of the page's tables."""
    return re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_tables_of_the_page_are_those_of_the_declarations():
    assert with_tables(PAGE) == PAGE, f"the declarations have changed; write the tables anew: {REMEDY}"
    every = (*keys_of(TrainConfig), *keys_of(ServeConfig, "serve."), *keys_of(CorpusConfig, "corpus."))
    names = [key.name for key in every]
    assert sorted(keys_on(PAGE)) == sorted(names) and len(names) > 50 and REMEDY in PAGE


def test_every_key_stands_under_the_heading_of_its_section():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert [text.partition("\n")[0] for text in sections] == [
        "model",
        "data",
        "optim",
        "run",
        "parallel",
        "serve",
        "corpus",
    ]
    for text in sections:
        assert {name.partition(".")[0] for name in keys_on(text)} == {text.partition("\n")[0]}


@pytest.mark.parametrize("said", ["| `run.seed` |", "| `1024` |", "| `1.0` |", "| true or false |"])
def test_a_page_that_is_out_of_step_is_seen_and_mended(said):
    assert said in PAGE
    other = PAGE.replace(said, "| other |", 1)
    assert with_tables(other) == PAGE != other


def test_a_page_without_a_section_is_refused():
    with pytest.raises(ValueError, match="no table below a heading `## optim`"):
        with_tables(PAGE.replace("## optim", "## recipe"))


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("model.dropout", "number, in [0, 1)", "0.1"),
        ("model.vocab_size", "whole number, at least 1", "required"),
        ("data.train.NAME.records", "path", "required"),
        ("optim.learning_rate", "number, above 0", "1e-4"),
        ("optim.bias_correction", "true or false", "false"),
        ("run.chip", "`auto`, `910A`, `910B`, `910C`", "auto"),
        ("run.seed", "whole number, in [0, 2^31)", "1"),
        ("run.checkpoint.keep_every", "whole number, at least 1, or null", "null"),
        ("run.initial", "path or null", "null"),
        ("parallel.layers_per_stage", "list of whole numbers, each at least 1", "[]"),
        ("parallel.recompute", "`none`, `selective`, `full`, or a list of them", "none"),
    ],
)
def test_type_bounds_and_default_in_words(name, kind, default):
    key = next(key for key in keys_of(TrainConfig) if key.name == name)
    assert (key.kind, key.default) == (kind, default)


def undeclared(cls, where=""):
    """Fields of a dataclass, and of those in it, that are neither a section nor declared."""
    for field in dataclasses.fields(cls):
        hint = field_types(cls)[field.name]
        inner = get_args(hint)[1] if get_origin(hint) is dict else hint
        if dataclasses.is_dataclass(inner):
            yield from undeclared(inner, f"{where}{field.name}.")
        elif option_of(field) is None:
            yield f"{where}{field.name}"


def test_every_key_of_a_run_is_declared():
    """A key without a declaration would stand on no page."""
    assert not [*undeclared(TrainConfig)] and not [*undeclared(SamplingConfig)]
    assert not [*undeclared(ServeConfig)] and not [*undeclared(CorpusConfig)]

    @dataclasses.dataclass
    class New:
        run: RunConfig
        steps: int = 3

    assert [*undeclared(New)] == ["steps"]


def test_every_help_is_a_phrase():
    """As it stands in a table's cell and behind an option: no period, no bar, one paragraph."""
    for key in (*keys_of(TrainConfig), *keys_of(CorpusConfig)):
        text = key.declared.help
        assert len(text) > 20 and not text.endswith(".") and not set(text) & set("|\n%"), key.name
        assert not text[0].isupper(), key.name


def test_pages_that_a_key_points_to_exist():
    for key in keys_of(TrainConfig):
        page, _, heading = key.declared.see.partition("#")
        if page:
            text = (ROOT / "docs" / page).read_text("utf-8")
            titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in ["", *slugs], key.name


def test_keys_on_a_terminal(capsys):
    assert main(["run.checkpoint.every"]) == 0
    assert capsys.readouterr().out == (
        "run.checkpoint.every: whole number, at least 1; default 1000\n"
        "    steps between two checkpoints; the last step and a signal save one, too\n"
    )
    assert main(["parallel"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\nparallel.") == len(dataclasses.fields(ParallelPlan)) - 1 and "`" not in shown
    with pytest.raises(ValueError, match=r"'run.checkpont' is no key; did you mean 'run.checkpoint'\?"):
        main(["run.checkpont"])


def test_the_page_is_written_in_place(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("| `1000` |", "| `7` |"), "utf-8")
    assert main(["--write", str(page)]) == 0 and page.read_text("utf-8") == PAGE


@pytest.mark.parametrize(
    ("page", "layers"),
    [
        ("docs/configuration.md", [4]),
        ("docs/plans.md", [64]),
        ("docs/planner.md", [64]),
        ("docs/use_released_weights.md", [40, 4]),
        ("README.md", [4, 64]),
        ("README_zh.md", [4, 64]),
    ],
)
def test_the_runs_that_a_page_shows_are_taken(page, layers):
    files = re.findall(r"<<'END'\n(.*?)^END", "".join(blocks(page, "bash")), re.DOTALL | re.MULTILINE)
    shown = [parse_yaml(text, page) for text in [*files, *blocks(page, "yaml")]]
    runs = [build_train_config(values) for values in shown if "run" in values]
    assert [run.model.num_layers for run in runs] == layers


def test_both_readmes_show_the_same_commands():
    pages = [
        [re.sub(r" +#.*", "", text) for language in ("bash", "yaml") for text in blocks(page, language)]
        for page in ("README.md", "README_zh.md")
    ]
    assert pages[0] and pages[0] == pages[1]
