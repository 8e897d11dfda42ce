"""Paths as users write them."""

from __future__ import annotations

import pwd

import pytest

from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.reading import ReadError


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("DATA", "/big/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "/home/ann"),
        ("~/x", "/home/ann/x"),
        ("${HOME}/x", "/home/ann/x"),
        ("$DATA/$DATA.y", "/big/data//big/data.y"),
        ("~/${DATA}", "/home/ann//big/data"),
        ("a~b/~/c~", "a~b/~/c~"),
        ("cost$/5$5/$", "cost$/5$5/$"),
        ("./~/x", "./~/x"),
        ("2_6b", "2_6b"),
        ("", ""),
        ("资料/$DATA", "资料//big/data"),
    ],
)
def test_what_a_shell_replaces_is_replaced(text, path):
    assert expand_path(text) == path
    assert expand_path(path) == path


def test_another_users_home():
    user = pwd.getpwuid(0)
    assert expand_path(f"~{user.pw_name}/x") == user.pw_dir.rstrip("/") + "/x"


def test_a_home_at_the_root(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert expand_path("~/x") == "/x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$NOWHERE/x", r"'\$NOWHERE/x': the environment has no value for '\$NOWHERE'; set it, or write the"),
        ("a/${NOWHERE}", r"no value for '\$\{NOWHERE\}'"),
        ("${EMPTY}/train", r"no value for '\$\{EMPTY\}'"),
        ("${HOME:-x}", r"no value for '\$\{HOME:-x\}'"),
        ("~nobody-of-this-name/x", "there is no user '~nobody-of-this-name'; write the path out"),
        ("a\0b", "cannot hold a NUL"),
    ],
)
def test_what_cannot_be_replaced_is_refused(text, words):
    with pytest.raises(ReadError, match=words):
        expand_path(text)


@pytest.mark.parametrize("name", ["a$NOWHERE", "~$draft"])
def test_a_file_of_such_a_name_is_taken_as_it_is(name, tmp_path):
    (tmp_path / name).touch()
    assert expand_path(name) == name
