"""The server: its address, slots, queue, limits, keys and scenarios."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import PathText, build, each_override, merge, read_yaml, validate

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHORTEST = 64  # slots of the smallest context; a prompt is fed in chunks of so many ids


@dataclass(frozen=True)
class ServeConfig:
    """What the operator of a server chooses.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    host: str = option(
        "127.0.0.1", "address to listen on; any but a loopback address needs a key file", metavar="ADDRESS"
    )
    port: int = option(8000, "TCP port to listen on; 0 takes a free one", at_least=0, below=2**16)
    model_name: str = option("pangu", "id of the model for clients; a scenario's id is this name, /, its own")
    slots: int = option(8, "continuations that are computed together", at_least=1, at_most=256)
    context: int | None = option(
        None,
        "longest prompt with its continuation, in tokens; null is 512 on CPU and the model's own on Ascend",
        at_least=_SHORTEST,
    )
    pinned: int = option(
        2, "prompt prefixes of scenarios that stay in the cache for good", at_least=0, at_most=64
    )
    deterministic: bool = option(
        True,
        "an answer depends only on the request, its seed and the server's shape; false may be faster for a "
        "single client, and reuses more of the cache",
    )
    queue: int = option(64, "requests that may wait; those beyond it are refused with 429", at_least=0)
    queue_tokens: int = option(32768, "prompt tokens that may wait", at_least=1)
    deadline: float = option(600.0, "longest time of a request from its arrival", unit="seconds", above=0)
    engine_timeout: float = option(
        120.0,
        "an engine that shows no sign of life for so long is ended and started again; no chunk of a prompt "
        "may take longer",
        unit="seconds",
        above=0,
    )
    drain_timeout: float = option(
        30.0, "time that running requests get to finish after SIGTERM", unit="seconds", at_least=0
    )
    body_bytes: int = option(1 << 20, "largest body of a request", unit="bytes", at_least=1024)
    header_timeout: float = option(
        10.0, "longest time for a request's headers to arrive", unit="seconds", above=0
    )
    body_timeout: float = option(30.0, "longest time for its body to arrive", unit="seconds", above=0)
    send_timeout: float = option(
        30.0, "a client that reads nothing for so long is dropped", unit="seconds", above=0
    )
    connections: int = option(256, "open connections of all clients together", at_least=1)
    connections_per_peer: int = option(32, "open connections of one address", at_least=1)
    key_file: PathText | None = option(
        None,
        "file with one key a line, NAME:SHA256[:SCENARIOS[:REQUESTS[:TOKENS]]]; only its owner may be able "
        "to read it",
        see="serving.md#how-do-i-give-keys-to-several-users-and-limit-them",
    )
    scenarios: PathText | None = option(
        None,
        "folder with scenarios of your own, one YAML file each; null serves those that are shipped",
        see="serving.md#how-do-i-make-a-scenario",
    )
    unknown_fields: Literal["refuse", "ignore"] = option(
        "refuse", "what happens to a field of a request that the server does not know"
    )
    cors_origin: tuple[str, ...] = option(
        (), "origin of another web site whose pages may call the server, such as https://example.org"
    )
    allowed_host: tuple[str, ...] = option(
        (), "further name by which clients may call a server on a loopback address, such as that of a proxy"
    )
    certificate: PathText | None = option(None, "certificate chain in PEM form, for TLS")
    certificate_key: PathText | None = option(None, "private key of the certificate, in PEM form")
    log_prompts: bool = option(False, "write prompts and answers into the log, too; keys never are")

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if isinstance(self.model_name, str) and not re.fullmatch(r"[A-Za-z0-9._-]+", self.model_name):
            yield "model_name: must be of letters, digits, and . _ -, because scenarios add /NAME to it"
        if isinstance(self.cors_origin, tuple) and "*" in self.cors_origin:
            yield "cors_origin: * would let every web site use the server; name the origins one by one"
        if (self.certificate is None) != (self.certificate_key is None):
            yield "certificate: TLS needs both certificate and certificate_key; give both or none"
        if isinstance(self.host, str) and self.host not in LOOPBACK and self.key_file is None:
            yield (
                f"host: {self.host} can be reached by others, and no keys are set; give key_file, or listen "
                "on 127.0.0.1 and let a proxy ask for a password"
            )

    @property
    def loopback(self) -> bool:
        """Whether only processes of this machine reach the server."""
        return self.host in LOOPBACK


@dataclass(frozen=True)
class _ServeFile:
    """A YAML file of a server, whose only section is serve."""

    serve: ServeConfig = ServeConfig()


def load_serve_config(path: str | None, overrides: tuple[str, ...], given: dict) -> ServeConfig:
    """Returns the configuration of a server.

    Args:
        path: A YAML file with a section serve.
        overrides: Words serve.KEY=VALUE, which go before the file.
        given: Fields from options of the command line, which go before both.

    Raises:
        ConfigError: Lists every problem.
    """
    values = read_yaml(path) if path else {}
    for change in each_override(overrides):
        values = merge(values, change)
    values = merge(values, {"serve": given})
    return build(_ServeFile, values).serve
