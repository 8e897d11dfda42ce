"""Options that several commands have."""

from __future__ import annotations

import argparse
from typing import Any

from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.cli.options.fields import Differs, add_options
from pangu_alpha.cli.options.value_types import path_text, positive, user_path
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan, plan_section
from pangu_alpha.config.schema import read_yaml
from pangu_alpha.files.shown import quoted


def add_plan_options(parser: argparse.ArgumentParser, title: str, *names: str) -> None:
    """Adds --plan and the options of a plan's fields, for `plan_fields` and `given_fields`.

    Args:
        title: Heading of their group in the help.
        names: The fields; none means all.
    """
    group = parser.add_argument_group(title)
    group.add_argument("--plan", type=path_text, metavar="YAML", help="a YAML with the fields of a plan, or "
        "that of a run with a section parallel; the options below change single fields")  # fmt: skip
    differing = {
        "micro_batches": Differs(shown="the least that fills the stages, pp"),
        "layers_per_stage": Differs(shown="spread evenly"),
    }
    chosen: dict[str, Any] = {
        name: differs for name, differs in differing.items() if not names or name in names
    }
    add_options(group, ParallelPlan, *(names or ("*",)), **chosen)


def plan_fields(file: str | None) -> dict[str, Any]:
    """Returns the fields of a plan in a YAML file, at the top or in its section parallel.

    The result is empty without a file, and for a run's YAML file without that section.

    Raises:
        ValueError: The file does not hold fields of a plan.
    """
    if file is None:
        return {}
    document = read_yaml(file)
    values = plan_section(document)
    if not isinstance(values, dict) or (not values and "parallel" in document) or not document:
        raise ValueError(f"{file}: no fields of a plan (dp, tp, pp, ...), but {quoted(values)}")
    return dict(values)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for `source_options`."""
    group = parser.add_argument_group("for checkpoints that do not describe themselves")
    group.add_argument("--model", type=path_text, metavar="NAME|YAML", help="shape of the network: a shipped "
        "model, or a YAML with a section model")  # fmt: skip
    group.add_argument("--strategy", type=user_path, metavar="FILE", help="MindSpore's strategy file")
    add_options(group, ModelConfig, norm_order=Differs(shown="what the checkpoint says"))


def source_options(options: argparse.Namespace) -> OpenOptions:
    """Returns what the user states about a checkpoint that does not describe itself."""
    return OpenOptions(options.model, options.strategy, options.norm_order)


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option of the weights that a command reads."""
    parser.add_argument("--checkpoint", required=True, type=path_text, metavar="PATH",
        help="a run's output folder (its newest whole checkpoint is taken), or a checkpoint that "
        "checkpoint.py opens")  # fmt: skip


def add_vocabulary_option(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Adds the option of the vocabulary, which is `data.vocabulary` in a run's YAML."""
    default = "" if required else " (default: vocab.model beside the checkpoint)"
    parser.add_argument("--vocabulary", "--tokenizer", dest="tokenizer", required=required, type=path_text,
        metavar="FILE", help=f"the vocabulary, a SentencePiece model{default}")  # fmt: skip


def add_rack_option(parser: argparse._ActionsContainer) -> None:
    """Adds --servers-per-rack."""
    parser.add_argument("--servers-per-rack", type=positive, metavar="N", help="servers in one rack "
        "(default: one rack holds all)")  # fmt: skip


def add_output_folder(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds --output for a folder, with its former name --out."""
    parser.add_argument("--output", "--out", dest="out", type=user_path, metavar="DIR", help=what)
