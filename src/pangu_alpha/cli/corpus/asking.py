"""Subcommands that ask about a finished corpus, or about the rules: report, explain, mix, list-rules."""

from __future__ import annotations

import argparse
from typing import Any

from pangu_alpha.cli.options import natural, path_text, user_path
from pangu_alpha.config.corpus import SOURCE_KINDS
from pangu_alpha.corpus.report import explain, explain_text, write_report
from pangu_alpha.corpus.rules import list_rules, profile
from pangu_alpha.corpus.stages import mix_text, mixtures
from pangu_alpha.files.reading import read_text
from pangu_alpha.files.shown import shown


def add_asking(commands: Any) -> None:
    """Adds the subcommands."""
    rules = commands.add_parser("list-rules", help="all rules with the bounds of the shipped profiles")
    rules.set_defaults(call=_list_rules)
    report = commands.add_parser("report", help="one HTML page with pictures and samples of what was dropped")
    _add_run(report)
    report.set_defaults(call=_report)
    _add_explain(commands)
    _add_mix(commands)


def _add_run(parser: argparse.ArgumentParser, **words: Any) -> None:
    parser.add_argument("run", type=path_text, metavar="RUN", help="output of a finished run", **words)


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser("explain", help="what became of a document, stage by stage, and why")
    _add_run(parser, nargs="?")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--id", type=natural, metavar="N", help="the document with this id")
    group.add_argument("--url", metavar="URL", help="the documents with this address")
    group.add_argument("--text-file", type=user_path, metavar="FILE", help="what the rules say of a text of "
        "your own; takes no run")  # fmt: skip
    parser.add_argument("--profile", type=path_text, default="pangu-alpha", metavar="NAME", help="with "
        "--text-file: the profile (default: pangu-alpha)")  # fmt: skip
    parser.add_argument("--kind", choices=SOURCE_KINDS, default="common_crawl", help="with --text-file: the "
        "kind of source (default: common_crawl)")  # fmt: skip
    parser.set_defaults(call=_explain)


def _add_mix(commands: Any) -> None:
    parser = commands.add_parser("mix", help="the section data of a run's YAML with the paper's weights")
    _add_run(parser)
    names = ", ".join(mixtures())
    parser.add_argument("--profile", required=True, metavar="NAME", help=f"a mixture of table 4: {names}")
    parser.add_argument("--records", type=path_text, default="records", metavar="DIR", help="folder of the "
        "folders of records (default: records)")  # fmt: skip
    parser.set_defaults(call=_mix)


def _list_rules(_: argparse.Namespace) -> int:
    print(list_rules(), end="")
    return 0


def _report(options: argparse.Namespace) -> int:
    print(f"{shown(write_report(options.run))}: written")
    return 0


def _explain(options: argparse.Namespace) -> int:
    if options.text_file is not None:
        if options.run is not None:
            raise ValueError("explain: give a run with --id or --url, or --text-file without a run")
        print(explain_text(read_text(options.text_file), profile(options.profile), options.kind), end="")
        return 0
    if options.run is None:
        raise ValueError("explain: name the output of the run that --id or --url is about")
    print(explain(options.run, options.id, options.url), end="")
    return 0


def _mix(options: argparse.Namespace) -> int:
    print(mix_text(options.run, options.profile, options.records), end="")
    return 0
