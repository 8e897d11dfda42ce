"""The commands of README and of all pages run as they stand, at small size: a page cannot grow false.

`page_table.py` says how each command is run, or why it is not; what is not run is still parsed.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

import page_commands
import pytest
import yaml
from page_commands import ROOT, calls, is_usage, option_names, parsed
from page_folder import Done, Folder, missing_lines, small
from page_reader import Step, spans, steps
from page_table import PAGES, Page, Row, never

FILES = ["README.md", "README_zh.md", "CONTRIBUTING.md", "CONTRIBUTING_zh.md", "model_zoo/README.md"]
NAMES = [
    path.relative_to(ROOT).as_posix()
    for path in [*(ROOT / name for name in FILES), *sorted((ROOT / "docs").rglob("*.md"))]
    if path.exists()
]
_OURS = re.compile(r"(python (src/|benchmarks/|-m pangu_alpha)|bash run_scripts/|pangu-alpha )")
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_TIMEOUT = {"ci": 120, "long": 1200}


def _original(name: str) -> str:
    """The English page of a Chinese one, whose commands must be the same."""
    english = name.replace("_zh.md", ".md")
    return english if english in NAMES else name


@dataclass(frozen=True)
class Read:
    """A page as it is tested."""

    name: str

    @property
    def text(self) -> str:
        return (ROOT / self.name).read_text("utf-8")

    @property
    def page(self) -> Page:
        return PAGES.get(_original(self.name), Page(()))

    def steps(self) -> list[Step]:
        """All but the lines that show the form of a command."""
        return [step for step in steps(self.text) if step.kind != "command" or not is_usage(step.text)]

    def usages(self) -> list[Step]:
        return [step for step in steps(self.text) if step.kind == "command" and is_usage(step.text)]

    def row(self, step: Step) -> Row | None:
        """That of the page's own comment, or the one with the longest beginning; of a program, which has no
        name, the beginning is `python: ` and its first words."""
        if step.reason:
            return never("", step.reason)
        text = step.text if step.kind == "command" else "python: " + step.text
        fitting = [row for row in self.page.rows if text.startswith(row.beginning)]
        return max(fitting, key=lambda row: len(row.beginning), default=None)


pages = pytest.mark.parametrize("read", [Read(name) for name in NAMES], ids=NAMES)


@pages
def test_every_command_has_a_row(read):
    lost = [
        f"{read.name}:{step.line}: {step.text}"
        for step in read.steps()
        if step.kind != "file" and read.row(step) is None
    ]
    assert not lost, "give each a row in page_table.py"


@pages
def test_every_row_has_a_command(read):
    used = {read.row(step) for step in read.steps() if step.kind != "file"}
    assert not [row.beginning for row in read.page.rows if row not in used]


def test_a_reason_that_names_a_test_names_one_that_is_there():
    reasons = [row.reason for page in PAGES.values() for row in page.rows if row.way == "never"]
    assert all(reasons)
    reasons += [step.reason for name in NAMES for step in Read(name).steps()]
    named = {name for reason in reasons for name in re.findall(r"test_\w+\.py", reason)}
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


def test_a_command_that_another_page_runs_is_run_there():
    for name, page in PAGES.items():
        for row in page.rows:
            if found := re.fullmatch(r"(\S+\.md) runs it", row.reason):
                other = Read(found[1])
                commands = [step for step in other.steps() if step.kind != "file"]
                theirs = {step.text for step in commands if other.row(step).way != "never"}
                ours = {step.text for step in Read(name).steps() if Read(name).row(step) == row}
                assert ours <= theirs, f"{name}: {row.beginning}"


def test_the_table_names_pages_that_are_there():
    assert set(PAGES) <= set(NAMES)


@pages
def test_every_command_parses(read):
    """Also those that are not run."""
    faults = []
    for step in read.steps():
        if step.kind != "command":
            continue
        row = read.row(step)
        for call in calls(small(step.text, "", row.replaced if row else ())):
            if call.program:
                try:
                    parsed(call)
                except AssertionError as error:
                    faults.append(f"{read.name}:{step.line}: {step.text}\n{error}")
    assert not faults, "\n".join(faults)


@pages
def test_options_of_forms_and_of_prose_exist(read):
    shown = [(step.line, step.text) for step in read.usages()]
    shown += [(line, text) for line, text in spans(read.text) if _OURS.match(text)]
    for line, text in shown:
        for call in calls(re.sub(r"\s+\|\s+.*|[\[\]()]|\.\.\.", " ", text)):
            known = option_names(call.program) if call.program else set()
            lost = {word for word in map(_name_of, call.words) if word} - known
            assert not call.program or not lost, f"{read.name}:{line}: {text}: {sorted(lost)}"


def _name_of(word: str) -> str | None:
    found = _OPTION.match(word)
    return found and found[0]


@pages
def test_files_that_are_named_are_there_or_made_earlier(read, tmp_path):
    folder = Folder(tmp_path / "checkout")
    made = {name.rstrip("/") for name in (*read.page.owned, *read.page.files)}
    if read.page.rows:
        for make in (*read.page.given, *read.page.given_long):
            made |= set(make.makes)
    for step in read.steps():
        if step.kind == "file":
            made |= {step.name, *_outputs_of(step.text)}
        elif step.kind == "python":
            made |= set(re.findall(r"\"(?:\./)?([\w./-]+)\"", step.text))  # any text may be a path
        elif step.kind == "command":
            made |= _made_by_shell(step.text)
            for call in calls(step.text):
                if not call.program:
                    continue
                named, written = page_commands.paths(call)
                lost = [name for name in named if not folder.has(name) and not _under(name, made)]
                assert not lost, f"{read.name}:{step.line}: {step.text}: nothing makes {lost}"
                made |= {name.rstrip("/") for name in written}


def _under(name: str, made: set[str]) -> bool:
    """Whether something made is this name, lies under it, or holds it."""
    name = name.rstrip("/")
    stem = name.split("*", 1)[0].rstrip("/")
    return any(each == name or each.startswith(stem + "/") or name.startswith(each + "/") for each in made)


def _made_by_shell(text: str) -> set[str]:
    """Files of a redirection, a copy or a new folder, and the outputs that a run's YAML names."""
    made = {found.strip("'\"") for found in re.findall(r">\s*([^\s>&|<]+)", text.split("<<", 1)[0])}
    made |= {word for words in re.findall(r"^(?:mkdir|cp|mv) (.*)", text, re.M) for word in words.split()}
    return made | _outputs_of(text)


def _outputs_of(text: str) -> set[str]:
    return set(re.findall(r"\boutput: ([\w./-]+)", text))


def _start(read: Read, folder: Folder, way: str) -> None:
    for name, text in read.page.files.items():
        folder.write(name, text)
    for make in (*read.page.given, *(read.page.given_long if way == "long" else ())):
        make(folder)


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def _walk(read: Read, folder: Folder, ways: tuple[str, ...]) -> int:
    """Does what a page says, step by step; returns how many commands and programs ran as the page says."""
    _start(read, folder, ways[-1])
    checked = 0
    printed: dict[int, str] = {}  # by block
    programs: list[str] = []  # blocks of Python without a command between them are one program
    walked = read.steps()
    for number, step in enumerate(walked):
        row = read.row(step)
        following = next((each for each in walked[number + 1 :] if _runs(read, each, ways)), None)
        if step.kind == "file":
            folder.write(step.name, step.text)
        elif row.way in ways and step.kind == "python":
            programs.append(small(step.text, "", row.replaced))
            if following is None or following.kind == "command":
                _check(read, step, row, folder.run_python("\n".join(programs), _TIMEOUT[row.way]))
                checked += 1
                programs.clear()
        elif row.way in ways:
            command = small(step.text, row.words.replace("FREE_PORT", _free_port()), row.replaced)
            done = folder.run(command, _TIMEOUT[row.way])
            printed[step.block] = printed.get(step.block, "") + done.text
            _check(read, step, row, Done(done.code, printed[step.block]))
            checked += 1
    folder.remove()
    return checked


def _runs(read: Read, step: Step, ways: tuple[str, ...]) -> bool:
    """Whether a step ends or continues a program: files do not, nor programs that are not run."""
    return step.kind == "command" or (step.kind == "python" and read.row(step).way in ways)


def _check(read: Read, step: Step, row: Row, done: Done) -> None:
    place = f"{read.name}:{step.line}: {step.text}"
    assert done.code == row.code, f"{place}\nexit code {done.code}\n{done.text[-4000:]}"
    if row.output:
        missing = missing_lines(step.output, done.text, row.output == "exact")
        assert not missing, (
            f"{place}\nlines of the page that were not printed: {missing}\n{done.text[-4000:]}"
        )


def _with(way: str) -> list[str]:
    return [name for name in NAMES if name in PAGES and any(row.way == way for row in Read(name).page.rows)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder for what several pages need."""
    return tmp_path_factory.mktemp("shelf")


@pytest.mark.parametrize("name", _with("ci"))
def test_the_quick_commands_of_a_page_run(name, shelf, tmp_path):
    assert _walk(Read(name), Folder(tmp_path / "checkout", shelf), ("ci",)) > 0


@pytest.mark.long
@pytest.mark.parametrize("name", _with("long"))
def test_all_commands_of_a_page_run(name, shelf, tmp_path):
    assert _walk(Read(name), Folder(tmp_path / "checkout", shelf), ("ci", "long")) > 0


@pages
def test_runs_that_a_page_shows_are_valid(read, tmp_path):
    """YAML files with sections of a run have no unknown key and no wrong value."""
    from pangu_alpha.config.run import load_train_config

    for step in read.steps():
        name = step.name or (re.match(r"cat >\s*(\S+\.yaml) <<", step.text) or [None, None])[1]
        body = step.text if step.kind == "file" else "\n".join(step.text.split("\n")[1:-1])
        if not name or not name.endswith((".yaml", ".yml")):
            continue
        value = yaml.safe_load(body)
        if {"model", "data", "run"} <= set(value):
            path = tmp_path / "run.yaml"
            path.write_text(body, "utf-8")
            assert load_train_config(str(path)).run.steps > 0


@pytest.mark.parametrize("name", [name for name in NAMES if _original(name) != name])
def test_both_languages_have_the_same_commands(name):
    texts = [[step.text for step in Read(each).steps()] for each in (_original(name), name)]
    plain = [[re.sub(r"#[^\n]*", "", text) for text in each] for each in texts]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("name", [name for name in NAMES if _original(name) != name])
def test_both_languages_show_the_same_output(name):
    """Blocks of text whose twin has no Chinese in it: what a program printed."""
    blocks = [
        re.findall(r"^```(?:text|txt)\n(.*?)^```", Read(each).text, re.M | re.S)
        for each in (_original(name), name)
    ]
    pairs = list(zip(*blocks, strict=True))
    assert [ours for ours, theirs in pairs if ours != theirs and not re.search(r"[一-鿿]", theirs)] == []
