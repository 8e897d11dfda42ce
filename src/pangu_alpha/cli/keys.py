"""Lists every key of a run's YAML: as text for `train.py --keys`, and as tables for docs/configuration.md.

`python -m pangu_alpha.cli.keys` prints the text; with `--write docs/configuration.md` it replaces the tables
of that page, and leaves the text around them unchanged.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence

from pangu_alpha.cli.options import user_path
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.corpus import CorpusConfig
from pangu_alpha.config.keys import Key, keys_of
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.config.schema import nearest
from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.files.reading import read_text
from pangu_alpha.files.writing import write_text

_HEADER = "| key | type | default | meaning |\n| --- | --- | --- | --- |"
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the keys, or writes the tables of a page."""
    parser = Parser(prog="python -m pangu_alpha.cli.keys", description="Lists every key of a run's YAML.")
    parser.add_argument("section", nargs="?", default="", metavar="KEY", help="only the keys that begin so, "
        "such as run.checkpoint")  # fmt: skip
    parser.add_argument("--write", type=user_path, metavar="FILE", help="writes the tables into this page "
        "instead, docs/configuration.md")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.write is None:
        print(keys_text(section=options.section))
    else:
        write_text(options.write, with_tables(read_text(options.write)))
    return 0


def keys_text(cls: type = TrainConfig, section: str = "") -> str:
    """Lists the keys with their types, defaults and meanings, as wide as the terminal.

    Args:
        cls: A dataclass.
        section: Lists only this key and the keys below it; "" lists all.

    Raises:
        ValueError: There is no such key.
    """
    keys = list(keys_of(cls))
    chosen = [key for key in keys if not section or f"{key.name}.".startswith(f"{section}.")]
    if not chosen:
        known = {key.name.rpartition(".")[0] for key in keys} | {key.name for key in keys}
        raise ValueError(f"--keys: {section!r} is no key; {nearest(section, sorted(known))}")
    width = min(shutil.get_terminal_size().columns, 110)
    return "\n".join(_entry(key, width) for key in chosen)


def _entry(key: Key, width: int) -> str:
    default = key.default if key.default == "required" else f"default {key.default}"
    lines = textwrap.wrap(key.declared.plain(), width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([f"{key.name}: {key.kind.replace('`', '')}; {default}", *lines])


def with_tables(page: str) -> str:
    """Replaces the tables of a page by those of the YAMLs of a run, a server and a corpus.

    The table of a section must stand below its heading `## SECTION`.

    Raises:
        ValueError: A section has no heading, or no table.
    """
    sections: dict[str, list[Key]] = {}
    tables = (*keys_of(TrainConfig), *keys_of(ServeConfig, "serve."), *keys_of(CorpusConfig, "corpus."))
    for key in tables:
        sections.setdefault(key.name.partition(".")[0], []).append(key)
    parts = re.split(r"(?=^## )", page, flags=re.MULTILINE)
    for name, keys in sections.items():
        place = next((n for n, part in enumerate(parts) if part.startswith(f"## {name}\n")), None)
        if place is None or not _TABLE.search(parts[place]):
            raise ValueError(f"the page has no table below a heading `## {name}`; write one, with any row")
        parts[place] = _TABLE.sub(lambda _, keys=keys: f"{_table(keys)}\n", parts[place], count=1)
    return "".join(parts)


def _table(keys: Sequence[Key]) -> str:
    rows = [
        f"| `{key.name}` | {key.kind} | {key.default if key.default == 'required' else f'`{key.default}`'} "
        f"| {key.declared.markdown()} |"
        for key in keys
    ]
    return "\n".join([_HEADER, *rows])


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
