"""Prompt files: what is read, and what is refused with its file and line."""

from __future__ import annotations

import os

import pytest

from pangu_alpha.inference.prompts import parse_fields, prompt_lines, read_prompt_file, require_text
from pangu_alpha.inference.tasks import find_task


@pytest.fixture
def file(tmp_path):
    """Writes a prompt file."""

    def write(content, name="prompts.jsonl"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_lines_and_objects(file):
    assert read_prompt_file(file("\ufeff天下\r\n\n 大势 \n", "a.txt")) == ["天下", " 大势 "]
    assert prompt_lines(file("\n\na\n", "a.txt")) == [(3, "a")]
    for name in ("a.jsonl", "A.JSONL"):
        assert read_prompt_file(file('{"prompt": "天\\n下", "id": 3}\n', name)) == ["天\n下"]
    couplet = find_task("couplet")
    line = '{"first": "甲", "examples": [{"first": "乙", "second": "丙"}]}'
    assert read_prompt_file(file(line), couplet) == ["上联：乙\n下联：丙\n上联：甲\n下联："]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "line 1: mappings and lists in one another more than 100 deep"),
        ('{"prompt": "a"}\n{"prompt": ' + "[" * 200 + "]" * 200 + "}", "line 2: mappings and lists"),
        ('{"prompt": 1' + "0" * 5000 + "}", "line 1: a number of thousands of digits"),
        ('\n{"prompt": "\\ud800"}', "line 2: a text holds half of a surrogate pair"),
        ('{"prompt": "a", "weight": NaN}', "line 1: NaN, which is no JSON number"),
        ('{"prompt": "a", "prompt": "b"}', "line 1: key 'prompt' twice in one object"),
        ("天下".encode("gb18030"), "line 1: not UTF-8 text"),
        (b'{"prompt": "a"}\n{"prompt": "\xff"}', "line 2: not UTF-8 text"),
        ('{"prompt": "a"}\n{"prompt"', "line 2, column 10: not JSON"),
        ("[1]", "line 1: not a JSON object but [1]"),
        ('{"prompt": 3}', 'line 1: no text under "prompt"'),
        ("", "holds no prompt"),
        (" \n\r\n", "holds no prompt"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(file, content, words):
    path = file(content)
    with pytest.raises(ValueError) as caught:
        read_prompt_file(path)
    assert str(caught.value).startswith(str(path)) and words in str(caught.value)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("examples", ["5", '"abc"', "[1]", "{}", "null", "[[" + "1," * 50_000 + "1]]"])
def test_examples_are_a_list_of_objects(file, examples):
    path = file(f'{{"first": "甲", "examples": {examples}}}')
    with pytest.raises(ValueError, match='line 1: "examples": must be a list of objects, not') as caught:
        read_prompt_file(path, find_task("couplet"))
    assert len(str(caught.value)) < 400


def test_long_values_and_control_characters_are_cut_and_escaped(file):
    path = file('{"first": [' + "7," * 50_000 + '7], "\\u001b[2J": "x"}')
    with pytest.raises(ValueError) as caught:
        read_prompt_file(path, find_task("couplet"))
    lines = str(caught.value).split("\n")
    assert len(lines) == 2 and all(line.startswith(f"{path}, line 1: ") for line in lines)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 800


def test_pipes_that_nobody_writes_are_refused_and_the_shells_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe"):
        read_prompt_file(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a folder"):
        read_prompt_file(tmp_path)
    with pytest.raises(ValueError, match="is a device"):
        read_prompt_file("/dev/zero")
    end, start = os.pipe()  # <(command)
    os.write(start, "天下\n大势\n".encode())
    os.close(start)
    assert read_prompt_file(f"/dev/fd/{end}") == ["天下", "大势"]
    os.close(end)


def test_fields_of_a_command_line():
    assert parse_fields(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    with pytest.raises(ValueError, match="--field 'a': write it as key=value"):
        parse_fields(["a"])
    with pytest.raises(ValueError, match="--field 'a': given twice, '1' and '2'"):
        parse_fields(["a=1", "a=2"])


def test_words_that_are_not_utf8():
    require_text("天下", "--prompt")
    with pytest.raises(ValueError, match="--prompt '.*': not UTF-8 text"):
        require_text(os.fsdecode("天".encode("gb18030")), "--prompt")
