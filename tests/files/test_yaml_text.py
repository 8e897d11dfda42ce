"""YAML as it is read: what is taken, what is refused, and with which line."""

from __future__ import annotations

import math

import pytest
import yaml

from pangu_alpha.files import yaml_text
from pangu_alpha.files.yaml_text import YamlError, parse_yaml


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def loader(request, monkeypatch):
    """Both parsers that PyYAML may have."""
    if request.param == "python":
        monkeypatch.setattr(yaml_text, "_LOADER", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML without libyaml")


def refused(text):
    with pytest.raises(YamlError) as error:
        parse_yaml(text, "run.yaml")
    return error.value.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("0", 0),
        ("-12", -12),
        ("100_000", 100_000),
        ("0x1F", 31),
        ("0o17", 15),
        ("0b11", 3),
        ("1e-4", 1e-4),
        ("2E5", 2e5),
        ("1.", 1.0),
        ("-.5", -0.5),
        ("00.5", 0.5),
        ("1_000.5", 1000.5),
        ("-.inf", -math.inf),
        # what YAML 1.1 takes for something else
        ("yes", "yes"),
        ("Off", "Off"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("2026-11-26", "2026-11-26"),
        ("2026-13-45", "2026-13-45"),
        ("2026-11-26 10:00:00", "2026-11-26 10:00:00"),
        ("=", "="),
        # text
        ("'1'", "1"),
        ('"true"', "true"),
        ("! 1", "1"),
        ("!!str 1", "1"),
        ("1e", "1e"),
        ("--1", "--1"),
        ("1" + "_" * 100_000 + "x", "1" + "_" * 100_000 + "x"),
        # stated types
        ('!!int "5"', 5),
        ("!!float 5", 5.0),
        ("!!null ''", None),
        ("!!seq [1]", [1]),
        ("!!map {a: 1}", {"a": 1}),
        ("{1: a, true: b, 2026-11-26: c}", {"1": "a", "true": "b", "2026-11-26": "c"}),
        ("{~: d, 1.10: e}", {"~": "d", "1.10": "e"}),
        ("a: |\n  x\n  y\nb: >\n  x\n  y\n", {"a": "x\ny\n", "b": "x y\n"}),
        ("- &x [1]\n- *x\n- &x 2\n- *x", [[1], [1], 2, 2]),
    ],
)  # fmt: skip
def test_what_is_taken(text, value):
    found = parse_yaml(text, "run.yaml")
    assert found == value and type(found) is type(value)


def test_merge_keys():
    text = "base: &b {x: 1, y: 1}\nmore: &m {x: 2, z: 2}\n"
    assert parse_yaml(text + "a: {<<: *b, y: 3}", "x")["a"] == {"x": 1, "y": 3}
    assert parse_yaml(text + "a: {y: 3, <<: *b}", "x")["a"] == {"x": 1, "y": 3}
    assert parse_yaml(text + "a: {<<: [*m, *b]}", "x")["a"] == {"x": 2, "y": 1, "z": 2}
    assert parse_yaml(text + "a: {<<: {y: 5}}", "x")["a"] == {"y": 5}
    nested = text + "c: &c {<<: *b, w: 4}\na: {<<: *c, x: 9}"
    assert parse_yaml(nested, "x")["a"] == {"x": 9, "y": 1, "w": 4}
    assert parse_yaml('"<<": 1', "x") == {"<<": 1}
    assert refused(text + "a:\n  <<: *b\n  <<: *m") == (
        "run.yaml, line 5: key '<<' stands in line 4 already; write one `<<: [*a, *b]`",
    )
    assert refused("a: {<<: 5}") == ("run.yaml, line 1: << takes a mapping or a list of mappings",)


def test_a_key_that_stands_twice():
    text = "run:\n  steps: 1\n  'steps': 2\noptim: {a: [{b: 1, b: 1}]}\nrun: {}\n"
    assert refused(text) == (
        "run.yaml, line 3: key 'run.steps' stands in line 2 already; keep one of the two",
        "run.yaml, line 4: key 'optim.a.0.b' stands in line 4 already; keep one of the two",
        "run.yaml, line 5: key 'run' stands in line 1 already; keep one of the two",
    )
    assert parse_yaml("a: {k: 1}\nb: {k: 1}\nc: [{k: 1}, {k: 1}]", "x")["c"] == [{"k": 1}, {"k": 1}]


def test_a_thousand_of_them_are_not_all_named():
    problems = refused("a: 1\n" * 1000)
    assert len(problems) == 21 and problems[-1] == "run.yaml: perhaps more; these are the first"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nmodel: !!timestamp abc", "line 2: the tag !!timestamp is not supported; leave"),
        ("a: !!binary aGk=", "line 1: the tag !!binary is not"),
        ("a: !!set {x}", "line 1: the tag !!set is not"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag !!python/object/apply:os"),
        ("a: !mine x", "line 1: the tag !mine is not"),
        ("a: !!int ", "line 1: '' is not what its tag !!int says"),
        ("a: !!int 1.5", "line 1: '1.5' is not what its tag !!int says"),
        ("a: !!bool 1", "line 1: '1' is not what its tag !!bool says"),
        ("!!int a: 1", "line 1: key 'a' has a tag"),
        ("a:\n- " + "9" * 5000, "line 2: a whole number of 5,000 digits; no value here is so large"),
        ("a: 1e400", "line 1: '1e400' is beyond what a number here can hold"),
        ("? [a]\n: 1", "line 1: a mapping or list stands where a key is expected"),
        ("- &a b\n- {*a : 1}", "line 2: a reference stands where a key is expected"),
        ("a: *b", "line 1: *b refers to nothing above it"),
        ("a: &a [*a]", "line 1: *a stands inside of what it refers to"),
        ("a: 1\n---\nb: 1", "line 2: a second document begins; give one"),
        ("a: [1", ": not valid YAML: "),
        ("a:\n\t- 1", "line 2, column 1: not valid YAML"),
        ("a: \0", "not valid YAML"),
        ("a: \ud800", "holds bytes that are not UTF-8"),
        ("%TAG ! x\n" * 30, "names many tags by %TAG"),
    ],
)  # fmt: skip
def test_what_is_refused(text, problem):
    problems = refused(text)
    assert len(problems) == 1 and problems[0].startswith("run.yaml") and problem in problems[0]
    assert len(problems[0]) < 300


@pytest.mark.parametrize("opening", ["- ", "? ", "[", "{", "{a: ", "[[", "? - "])
def test_nesting_of_100_000_is_refused_in_words(opening):
    assert "run.yaml" in refused(opening * 100_000)[0]


def test_a_hundred_deep_is_read():
    assert parse_yaml("[" * 100 + "]" * 100, "x")
    assert refused("[" * 101 + "]" * 101)[0].startswith("run.yaml, line 1: mappings and lists in one another")


def test_references_to_references_do_not_grow():
    lines = ["a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "references repeat more than 100,000 values" in refused("\n".join(lines))[0]
    merged = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 30)]
    assert "references repeat" in refused("\n".join(merged))[0]


def test_too_long_a_text(monkeypatch):
    monkeypatch.setattr(yaml_text, "MOST_LETTERS", 10)
    assert refused("a: 1234567890") == ("run.yaml: more than 10 characters; such YAML is not read",)


@pytest.mark.parametrize(
    "value",
    [
        {"output": "1e5", "b": ["0o17", "010", "yes", "2026-11-26", "~", "", "a: b", "x #y", "盘古", "<<"]},
        {"1e5": 1e-05, "n": -3, "t": True, "none": None, "nested": {"a": [], "b": {}}, "big": 2.0**32},
        {"a": ".5e3", "b": "+1.e2", "c": "1_0e1", "d": ["=", "1:30"], "e": "a\nb\n", "f": "\x1b[0m"},
        ["!x", "*x", "- a", "? b", "&c", "%d", "@e", "`f"],
    ],
)  # fmt: skip
def test_what_is_written_is_read_as_the_same(value):
    text = yaml_text.yaml_text(value)
    assert parse_yaml(text, "x") == value
    assert yaml.safe_load(text) == value


def test_what_is_written_has_no_references():
    shared = [1]
    assert yaml_text.yaml_text({"b": shared, "a": shared}) == "b:\n- 1\na:\n- 1\n"
