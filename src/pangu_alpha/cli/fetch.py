"""`python -m pangu_alpha.cli.fetch NAME...`: fetches corpora and the released vocabulary by name."""

from __future__ import annotations

import argparse

from pangu_alpha.cli import run_main
from pangu_alpha.cli.options import user_path
from pangu_alpha.cli.parser import Parser
from pangu_alpha.text.corpora import (
    corpora,
    default_directory,
    documents,
    fetch_all,
    find_corpus,
    write_jsonl,
)


def main(arguments: list[str]) -> int:
    """Fetch the named files, or list what there is."""
    options = _parser().parse_args(arguments)
    if options.list:
        _print_table()
        return 0
    if not options.names:
        raise ValueError("name what to fetch, or use --list to see what there is")
    for name, path in fetch_all(options.names, options.to).items():
        corpus = find_corpus(name)
        print(f"{name}: {path} ({corpus.bytes / 1e6:.1f} MB; {corpus.licence})")
        if options.jsonl and corpus.kind != "file":
            target = path.with_name(f"{name}.jsonl")
            print(f"{name}: {target} ({write_jsonl(documents(name, path), target)} documents)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m pangu_alpha.cli.fetch", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a name of --list")
    parser.add_argument(
        "--output",
        "--to",
        dest="to",
        type=user_path,
        metavar="DIR",
        help=f"folder for the files (default: {default_directory()})",
    )
    parser.add_argument("--jsonl", action="store_true", help="also write the documents as NAME.jsonl")
    parser.add_argument("--list", action="store_true", help="show what there is, with size and licence")
    return parser


def _print_table() -> None:
    for corpus in corpora().values():
        print(f"{corpus.name:18}{corpus.bytes / 1e6:6.1f} MB  {corpus.title}")
        print(f"{'':28}from {corpus.package} {corpus.version}; {corpus.licence}")


if __name__ == "__main__":
    run_main(main)
