"""docs/configuration.md holds every key of a run's YAML with the schema's types and defaults, and the runs
that pages show are taken."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path

import pytest

from pangu_alpha.config.run import TrainConfig, build_train_config
from pangu_alpha.config.schema import PathText, parse_yaml, to_mapping

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/configuration.md").read_text("utf-8")
WORDS = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    PathText: "path",
    type(None): "null",
}


def type_words(hint) -> str:
    """The type of a key as the page says it."""
    if hint in WORDS:
        return WORDS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if origin is tuple:
        return f"list of {type_words(arguments[0])}s"
    if dataclasses.is_dataclass(hint):  # a section that may be a file of its own
        return "path or mapping"
    assert origin in (typing.Union, types.UnionType), hint
    return " or ".join(map(type_words, arguments))


def default_of(field):
    """A field's default as YAML has it; "required" where there is none."""
    if field.default is not dataclasses.MISSING:
        return to_mapping(field.default)
    return "required" if field.default_factory is dataclasses.MISSING else to_mapping(field.default_factory())


def keys_of(cls, where: str = ""):
    """All keys of a dataclass and of those in it: name, type, default."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], where + field.name
        if typing.get_origin(hint) is dict:
            hint, name = typing.get_args(hint)[1], f"{name}.NAME"
        if dataclasses.is_dataclass(hint):
            yield from keys_of(hint, f"{name}.")
        else:
            yield name, type_words(hint), default_of(field)


def keys_on(page: str):
    """The same as the rows of the page's tables say it."""
    for line in re.findall(r"^\| `.*", page, re.MULTILINE):
        name, kind, default, meaning = line[2:-2].split(" | ")
        assert meaning.strip(), name
        yield name.strip("`"), kind, parse_yaml(default.strip("`"), name)


def in_order(keys) -> list[str]:
    return sorted(map(repr, keys))  # as text: 1, 1.0 and True are equal


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_page_has_every_key_once_with_its_type_and_default():
    real = in_order(keys_of(TrainConfig))
    assert len(real) > 50 and in_order(keys_on(PAGE)) == real


def test_every_key_stands_under_the_heading_of_its_section():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert [text.partition("\n")[0] for text in sections] == ["model", "data", "optim", "run", "parallel"]
    for text in sections:
        assert {name.partition(".")[0] for name, *_ in keys_on(text)} == {text.partition("\n")[0]}


@pytest.mark.parametrize("said", ["| `run.seed` |", "| `1024` |", "| `1.0` |", "| true or false |"])
def test_a_page_that_is_out_of_step_is_seen(said):
    assert said in PAGE
    for other in ("| `1` |", "| other |"):
        assert in_order(keys_on(PAGE.replace(said, other, 1))) != in_order(keys_of(TrainConfig))


@pytest.mark.parametrize(
    ("page", "layers"),
    [
        ("docs/configuration.md", [4]),
        ("docs/checkpoints.md", [40]),
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
