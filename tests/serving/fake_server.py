"""The real front over an engine without a network: `python -m tests.serving.fake_server --port 8123`.

It starts in a second, so the page can be worked on and tried in a browser.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from pangu_alpha.cli.options import add_options, given_fields
from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.files.shown import log_to_stderr
from pangu_alpha.serving.access.keys import Keys, read_keys
from pangu_alpha.serving.engine.settings import EngineSettings
from pangu_alpha.serving.front.server import serve
from pangu_alpha.serving.scenarios import load_scenarios, shipped_scenarios
from pangu_alpha.text.vocabulary import train_vocabulary
from tests.serving.fake_engine import SCRIPT

ENGINE = Path(__file__).with_name("fake_engine.py")
TEXTS = [
    SCRIPT,
    "春风得意花千树，秋雨梧桐叶落时。甲：你好。\n乙：很高兴见到你！\n上联：海阔凭鱼跃\n下联：天高任鸟飞\n",
    "正文：今天上午，图书馆开放。\n摘要：新馆开放。\n问：中国的首都是哪里？\n答：北京。\nabc, def; 1 2 3",
]
SIZE = 105


def engine_command(vocabulary, *options) -> list[str]:
    """Starts the engine's process."""
    return [sys.executable, str(ENGINE), "--vocabulary", str(vocabulary), *map(str, options)]


def main() -> int:
    """Serves until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, ServeConfig, "*")
    parser.add_argument("--delay", type=float, default=0.03, help="seconds of a step")
    parser.add_argument("--load", type=float, default=0.0, help="seconds of loading")
    parser.add_argument("--random", action="store_true", help="random text instead of the script")
    parser.add_argument("--die", action="store_true", help="an engine that crashes at its start")
    parser.add_argument("--vocabulary", help="instead of a small one that is made")
    parser.add_argument("--checkpoint", default="fake", help="`refused` fails in words")
    options = parser.parse_args()
    config = ServeConfig(**given_fields(options, ServeConfig))
    log_to_stderr()
    scenarios = load_scenarios(config.scenarios) if config.scenarios else shipped_scenarios()
    keys = read_keys(config.key_file, scenarios) if config.key_file else Keys()
    settings = EngineSettings(
        options.checkpoint, slots=config.slots, context=config.context, pinned=config.pinned
    )
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = options.vocabulary or str(Path(folder) / "vocab.model")
        if not options.vocabulary:
            train_vocabulary(TEXTS, vocabulary, SIZE)
        more = ["--delay", options.delay, "--load", options.load]
        more += [] if options.random else ["--script"]
        more += ["--die"] if options.die else []
        return serve(config, settings, keys, scenarios, engine_command(vocabulary, *more))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
