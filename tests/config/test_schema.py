"""Every problem of a configuration is reported, at once, with its key, value, rule and remedy."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from pangu_alpha.config.run import RunConfig
from pangu_alpha.config.schema import (
    ConfigError,
    PathText,
    build,
    merge,
    parse_overrides,
    parse_yaml,
    read_yaml,
    to_mapping,
    validate,
)


@dataclass(frozen=True)
class Inner:
    size: int
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    inner: Inner
    names: tuple[str, ...] = ()
    table: dict[str, Inner] | None = None
    flag: bool = False


@dataclass(frozen=True)
class Plain:
    whole: int = 0
    number: float = 0.0
    flag: bool = False
    text: str = ""
    path: PathText | None = None

    def __post_init__(self) -> None:
        validate(self)


def test_round_trip():
    config = Outer(Inner(3), ("a", "b"), {"x": Inner(1, 2.0)})
    assert build(Outer, to_mapping(config)) == config


@pytest.mark.parametrize(
    "values, message",
    [
        ({"inner": {"size": 3, "raet": 1.0}}, "inner.raet: unknown key; did you mean 'rate'?"),
        ({"inner": {"size": 3}, "rate": 1.0}, "rate: unknown key; did you mean 'inner.rate'?"),
        ({"inner": {}}, "inner.size: missing"),
        ({"inner": {"size": "three"}}, "inner.size: expected a whole number, found 'three'"),
        ({"inner": {"size": True}}, "inner.size: expected a whole number, found True"),
        ({"inner": {"size": 3}, "flag": 1}, "flag: expected true or false, found 1"),
        ({"inner": {"size": 3}, "names": ["a", 2]}, "names[1]: expected a text, found 2"),
        ({"inner": {"size": 3}, "table": {"x": {"size": 1.5}}}, "table.x.size: expected a whole number"),
        ({"inner": {"size": 3}, "names": "a"}, "names: expected a list of texts, found 'a'"),
        ({"inner": 5}, "inner: expected a mapping of keys, found 5"),
        ([1], "Outer: expected a mapping of keys"),
    ],
)
def test_each_problem(values, message):
    with pytest.raises(ConfigError) as error:
        build(Outer, values)
    assert message in str(error.value)


def test_problems_come_together():
    with pytest.raises(ConfigError) as error:
        build(Outer, {"inner": {"size": "x", "sise": 1}, "flog": True, "names": "a"})
    assert len(error.value.problems) == 4
    assert str(error.value).startswith("4 problems in the configuration:\n  - ")


def test_whole_numbers_are_numbers_but_not_the_reverse():
    assert build(Inner, {"size": 1, "rate": 2}) == Inner(1, 2.0)
    with pytest.raises(ConfigError):
        build(Inner, {"size": 1.0})


def test_yaml_floats_without_a_dot():
    assert parse_yaml("a: 1e-4\nb: 2E5\nc: 1.5e3\nd: 12\ne: 1e", "x") == {
        "a": 1e-4,
        "b": 2e5,
        "c": 1500.0,
        "d": 12,
        "e": "1e",
    }


def test_overrides():
    assert parse_overrides(["a.b=1e-3", "a.c=true", "d=text", "e="]) == {
        "a": {"b": 1e-3, "c": True},
        "d": "text",
        "e": "",
    }
    with pytest.raises(ConfigError) as error:
        parse_overrides(["novalue", "=3", "a..b=1"])
    assert len(error.value.problems) == 3


def test_merge_leaves_its_arguments_alone():
    base = {"a": {"b": 1, "c": 2}}
    assert merge(base, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}} and base == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("content", [b"a: [1", b"- 1\n- 2\n", b"\xff\xfe"])
def test_files_that_are_no_mapping(tmp_path, content):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="x.yaml"):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="nowhere"):
        read_yaml(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("word", ["a: 1\nb: 2\na: 3", "b: {a: 1}\nc: {x: 1, y: 2, x: 3}"])
def test_a_file_that_says_something_twice(word, tmp_path):
    (tmp_path / "x.yaml").write_text(word)
    with pytest.raises(ConfigError, match=r"x\.yaml, line \d: key '.*' stands in line \d already"):
        read_yaml(tmp_path / "x.yaml")


def test_of_two_overrides_the_last_wins():
    assert parse_overrides(["a.b=1", "a.b=2"]) == {"a": {"b": 2}}
    assert parse_overrides(["a={b: 1, c: 1}", "a.b=2"]) == {"a": {"b": 2, "c": 1}}
    assert parse_overrides(["a.b=2", "a={b: 1, c: 1}"]) == {"a": {"b": 1, "c": 1}}
    with pytest.raises(
        ConfigError, match="override 'a={b: 1, b: 2}', line 1: key 'b' stands in line 1 already"
    ):
        parse_overrides(["a={b: 1, b: 2}"])


def test_every_override_that_is_wrong_is_named():
    with pytest.raises(ConfigError) as error:
        parse_overrides(["a=[1", "b", "c=!!int x", "a." * 200 + "b=1", "d=x #1", "e=#1", "f=\udcd0"])
    problems = error.value.problems
    assert len(problems) == 7 and max(map(len, problems)) < 300
    assert "put the value in quotes: d='\"...\"'" in problems[4]


def test_a_sign_that_is_no_comment():
    assert parse_overrides(["a='x #1'", "b=x#1", 'c="# 1"']) == {"a": "x #1", "b": "x#1", "c": "# 1"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(number):
    for make in (lambda: Plain(number=number), lambda: build(Plain, {"number": number})):
        with pytest.raises(ConfigError, match=r"number: -?(nan|inf) must be a finite number") as error:
            make()
        assert ("such as 1e9" in str(error.value)) == (number == number)


@pytest.mark.parametrize(("key", "value"), [("whole", 2**63), ("number", 10**400), ("whole", -(2**63) - 1)])
def test_whole_numbers_have_64_bits(key, value):
    with pytest.raises(ConfigError, match=f"{key}: .* is too large a number"):
        build(Plain, {key: value})
    assert build(Plain, {"whole": 2**63 - 1, "number": 10**20}) == Plain(2**63 - 1, 1e20)


def test_other_words_for_true_and_false():
    words = parse_yaml("[yes, Yes, ON, no, Off, 'NO']", "x")
    assert [build(Plain, {"flag": word}).flag for word in words] == [True, True, True, False, False, False]
    assert build(Plain, parse_yaml("text: no", "x")).text == "no"
    with pytest.raises(ConfigError, match="flag: expected true or false, found 'y'"):
        build(Plain, {"flag": "y"})


def test_a_date_is_the_text():
    assert build(Plain, parse_yaml("{text: 2026-11-26}", "x")).text == "2026-11-26"
    with pytest.raises(ConfigError, match="whole: expected a whole number, found '2026-13-45'"):
        build(Plain, parse_yaml("{whole: 2026-13-45}", "x"))


def test_paths_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert Plain(path="~/x").path == "/home/ann/x"
    assert build(Plain, {"path": "$DATA/a~b", "text": "~/$DATA"}) == Plain(path="/data/a~b", text="~/$DATA")
    with pytest.raises(ConfigError, match=r"path: '\$NOWHERE': the environment has no value for"):
        build(Plain, {"path": "$NOWHERE"})
    with pytest.raises(ConfigError, match="path: expected a path, found 5"):
        build(Plain, {"path": 5})


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, ["x"] * 10**6, {str(i): i for i in range(10**5)}, pytest.param(10**5000, id="whole")],
)
def test_values_are_cut_in_messages(value):
    for key in ("whole", "number", "flag", "text", "path"):
        if key in ("text", "path") and isinstance(value, str):
            continue
        with pytest.raises(ConfigError) as error:
            build(Plain, {key: value})
        assert len(str(error.value)) < 300


def test_many_problems_are_not_all_shown():
    with pytest.raises(ConfigError) as error:
        build(Plain, {f"key{i}": i for i in range(10**5)} | {"k" * 10**6: 1, "\x1b[31m": 2})
    text = str(error.value)
    assert "Plain: 99,972 more unknown keys" in text or "more unknown keys" in error.value.problems[-1]
    assert len(text) < 10_000 and "\x1b" not in text


def test_a_rule_is_told_whole():
    """However long the sentence is: only keys and values are cut."""

    @dataclass(frozen=True)
    class Long:
        size: int

        def rules(self):
            yield f"size: {self.size} is wrong, {'for a reason ' * 20}and that is the end"

    for where in ("", "run"):
        with pytest.raises(ConfigError, match="and that is the end"):
            build(Long, {"size": 1}, where)


def test_a_path_of_a_variable_is_utf8(monkeypatch):
    """No manifest can hold another one: a checkpoint that says where it is from could not be opened."""
    monkeypatch.setenv("FOLDER", os.fsdecode("数据".encode("gbk")))
    with pytest.raises(ConfigError, match=r"run.output: .* is not UTF-8; give a path with another name"):
        build(RunConfig, {"output": "${FOLDER}/run", "steps": 1}, "run")


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (tuple[int, ...], "a list of whole numbers"),
        (tuple[PathText, ...] | None, "a list of paths"),
        (tuple[tuple[str | None, ...], ...], "a list of lists of texts or nulls"),
        (tuple[bool, ...], "a list of true or false"),
    ],
)
def test_lists_are_described_in_the_plural(hint, words):
    @dataclass(frozen=True)
    class Listed:
        values: object

        def __post_init__(self):
            validate(self)

    Listed.__annotations__["values"] = hint
    with pytest.raises(ConfigError) as error:
        Listed(3)
    assert error.value.problems == (f"values: expected {words}, found 3",)
