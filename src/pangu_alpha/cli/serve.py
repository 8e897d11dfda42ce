"""Command line of serve.py: an OpenAI-compatible server of a checkpoint's model."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence

from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.cli import run_main
from pangu_alpha.cli.options import (
    add_checkpoint_option,
    add_options,
    add_source_options,
    add_vocabulary_option,
    given_fields,
    path_text,
    source_options,
)
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.run import RunConfig
from pangu_alpha.config.serve import ServeConfig, load_serve_config
from pangu_alpha.files.shown import log_to_stderr
from pangu_alpha.serving.access.keys import Keys, read_keys
from pangu_alpha.serving.engine.settings import EngineSettings
from pangu_alpha.serving.scenarios import load_scenarios, shipped_scenarios

_EPILOG = """\
example:
  serve.py --checkpoint runs/mine --port 8000
  curl http://127.0.0.1:8000/v1/completions -H 'content-type: application/json' \\
      -d '{"model": "pangu", "prompt": "中国的首都是"}'

The page is at http://127.0.0.1:8000/. Keys of the YAML are also given as serve.KEY=VALUE;
docs/configuration.md lists them, and docs/serving.md shows how to use them.

exit code: 0 all requests were finished; 128 + n after signal n, if some were cut; 1 the engine died too
often; 2 wrong input
"""
_PACKAGES = ("starlette", "uvicorn", "httptools", "prometheus_client")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs serve.py; raises ValueError for what the user can fix."""
    options = _parser().parse_args(arguments)
    config = load_serve_config(options.config, tuple(options.overrides), given_fields(options, ServeConfig))
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"the server needs {', '.join(missing)}; install them: pip install -e '.[serve]'")
    scenarios = load_scenarios(config.scenarios) if config.scenarios else shipped_scenarios()
    keys = read_keys(config.key_file, scenarios) if config.key_file else Keys()
    open_source(options.checkpoint, source_options(options))  # a wrong path is refused in a second
    log_to_stderr()

    # It needs the packages of the extra, so this comes after they have been looked for.
    from pangu_alpha.serving.front.server import serve

    return serve(config, _settings(options, config), keys, scenarios)


def _settings(options: argparse.Namespace, config: ServeConfig) -> EngineSettings:
    return EngineSettings(
        checkpoint=options.checkpoint,
        tokenizer=options.tokenizer,
        end_of_document=options.end_of_document,
        device=options.device or RunConfig.device,
        slots=config.slots,
        context=config.context,
        pinned=config.pinned,
        deterministic=config.deterministic,
        model=options.model,
        strategy=None if options.strategy is None else str(options.strategy),
        norm_order=options.norm_order,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="serve.py",
        description="Serves a trained PanGu-alpha over HTTP, for OpenAI's clients and for browsers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint_option(parser)
    add_vocabulary_option(parser)
    add_options(parser, RunConfig, "device")
    parser.add_argument("--end-of-document", metavar="PIECE", help="name of the piece between documents "
        "(default: what the checkpoint says)")  # fmt: skip
    parser.add_argument("--config", type=path_text, metavar="YAML", help="a file with a section serve")
    add_options(parser.add_argument_group("the server; also keys of the section serve"), ServeConfig, "*")
    add_source_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="serve.KEY=VALUE", help="change a key of the "
        "YAML, such as serve.slots=4")  # fmt: skip
    return parser


if __name__ == "__main__":
    run_main(main)
