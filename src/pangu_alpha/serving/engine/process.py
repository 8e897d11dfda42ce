"""The engine's process from its start to its end: settings, network, pinned prefixes, then the loop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pangu_alpha.inference.engine.row_decoder import RowDecoder
from pangu_alpha.inference.engine.scheduler import Engine
from pangu_alpha.serving.engine.channel import Channel
from pangu_alpha.serving.engine.settings import EngineSettings
from pangu_alpha.serving.engine.worker import Worker

FAILED = 2  # exit code after a message that says what the user can change


@dataclass(frozen=True)
class Described:
    """A network before its weights are loaded.

    Args:
        vocabulary: Path of its vocabulary.
        lines: What the operator should know about it, one line each.
        banned: Ids that are never generated.
        load: Loads the weights, makes the cache and compiles all graphs; returns the seconds that each took.
    """

    vocabulary: str
    vocab_size: int
    end_of_document: int
    context: int
    name: str
    lines: Sequence[str]
    banned: Collection[int]
    load: Callable[[], tuple[RowDecoder, Mapping[str, float]]]


def serve_front(descriptor: int, describe: Callable[[EngineSettings], Described]) -> int:
    """Works for the front at the other end of an inherited socket.

    Args:
        descriptor: The socket's number.
        describe: Opens the checkpoint.

    Returns:
        The process's exit code.
    """
    channel = Channel(socket.socket(fileno=descriptor))
    settings = EngineSettings(**_next(channel, "settings")["settings"])
    try:
        worker = _started(channel, settings, describe)
    except (ValueError, OSError) as error:
        channel.send({"op": "failed", "message": str(error)})
        return FAILED
    worker.run()
    return 0


def _started(
    channel: Channel, settings: EngineSettings, describe: Callable[[EngineSettings], Described]
) -> Worker:
    found = describe(settings)
    channel.send({"op": "hello", **_hello(found, settings)})
    decoder, seconds = found.load()
    for graph, each in seconds.items():
        channel.send({"op": "progress", "text": f"graph {graph}: {each:.1f} s"})
    engine = Engine(decoder, {found.end_of_document}, found.banned)
    for number, ids in enumerate(_next(channel, "pin")["prefixes"][: decoder.pinned]):
        if len(ids) >= decoder.chunk:  # a prefix is shared in whole chunks
            count = engine.pin(ids)
            channel.send({"op": "progress", "text": f"prefix {number + 1}: {count} tokens are pinned"})
    channel.send({"op": "ready"})
    return Worker(engine, channel, settings.deterministic)


def _hello(found: Described, settings: EngineSettings) -> dict[str, Any]:
    return {
        "vocabulary": found.vocabulary,
        "vocab_size": found.vocab_size,
        "end_of_document": found.end_of_document,
        "context": found.context,
        "slots": settings.slots,
        "pinned": settings.pinned,
        "name": found.name,
        "lines": list(found.lines),
    }


def _next(channel: Channel, kind: str) -> dict[str, Any]:
    """The next message of a kind, for which this waits; the process ends if there is none.

    Others are left out: the front may still give up a request of the engine before this one.
    """
    while not channel.closed:
        for message in channel.receive(60.0):
            if message["op"] == kind:
                return message
    raise SystemExit(0)
