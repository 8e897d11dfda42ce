"""Every problem of a configuration is reported, at once, with its key, value, rule and remedy."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pangu_alpha.config.schema import (
    ConfigError,
    build,
    merge,
    parse_overrides,
    parse_yaml,
    read_yaml,
    to_mapping,
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
