"""A server from its first line to its exit code: listens, starts the engine, drains, ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import uvicorn

from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.serving.access.keys import Keys
from pangu_alpha.serving.engine.settings import EngineSettings
from pangu_alpha.serving.front.app import make_app
from pangu_alpha.serving.front.connections import Connections, bounded_protocol, open_files
from pangu_alpha.serving.front.link import COMMAND, EngineFailedError, Link
from pangu_alpha.serving.front.state import State
from pangu_alpha.serving.scenarios import Scenario

logger = logging.getLogger(__name__)

_BACKLOG = 1024
_KEEP_ALIVE = 75  # seconds, longer than the 60 of nginx, so that a proxy never meets a closed connection
_CUT_WITHIN = 5.0  # seconds in which cut requests send their last event
_REMEDIES = {
    errno.EADDRINUSE: "end the program that has it, or give another --port",
    errno.EACCES: "give a --port from 1024 on, or start the server with the right to open lower ones",
}
FAILED = 1  # exit code when the engine has died too often


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to us.

    Args:
        handshake: Seconds that a client has for the handshake of TLS; uvicorn 0.54 has no option for it.
    """

    def __init__(self, config: uvicorn.Config, handshake: float) -> None:
        super().__init__(config)
        self._handshake = handshake

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        plain = loop.create_server
        if self.config.is_ssl:
            bounded = partial(plain, ssl_handshake_timeout=self._handshake)
            loop.create_server = bounded  # type: ignore[method-assign]
        try:
            await super().startup(sockets)
        finally:
            loop.create_server = plain  # type: ignore[method-assign]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(config: ServeConfig) -> socket.socket:
    """Opens the port.

    Raises:
        ValueError: It is in use, or may not be opened; the message says what to do.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((config.host, config.port))
    except OSError as error:
        found.close()
        reason = (error.strerror or str(error)).lower()
        remedy = _REMEDIES.get(error.errno or 0, "give another --host, an address of this machine")
        raise ValueError(
            f"port {config.port} of {config.host} cannot be opened: {reason}; {remedy}"
        ) from error
    found.listen(_BACKLOG)
    return found


def check_certificate(config: ServeConfig) -> None:
    """Reads the certificate, before minutes pass until a network is loaded.

    Raises:
        ValueError: It cannot be used.
    """
    if config.certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.certificate, config.certificate_key)
    except OSError as error:
        raise ValueError(
            f"certificate: {config.certificate} with {config.certificate_key} cannot be used: "
            f"{error.strerror or error}; give a certificate and its key, both in PEM form"
        ) from error


def serve(
    config: ServeConfig,
    settings: EngineSettings,
    keys: Keys,
    scenarios: Mapping[str, Scenario],
    command: Sequence[str] = COMMAND,
) -> int:
    """Serves until a signal comes.

    Args:
        command: Starts the engine's process.

    Returns:
        0 if all requests were finished; 128 + the signal's number if some were cut; 1 if the engine died too
        often.

    Raises:
        ValueError: The port cannot be opened, or the engine cannot start.
    """
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the addresses are named here, in our words
    check_certificate(config)
    with listen(config) as opened:
        return asyncio.run(_Running(config, keys, scenarios, settings, command).run(opened))


class _Running:
    """A server at work."""

    def __init__(
        self,
        config: ServeConfig,
        keys: Keys,
        scenarios: Mapping[str, Scenario],
        settings: EngineSettings,
        command: Sequence[str],
    ) -> None:
        self._config = config
        self._state = State(config, keys, scenarios)
        self._state.link = self._link = Link(
            settings, self._state.greeted, command, stuck_after=config.engine_timeout
        )
        self._link.on_tick = self._state.metrics.iteration.observe
        self._signal = 0
        self._again = asyncio.Event()

    async def run(self, opened: socket.socket) -> int:
        """Serves on an open socket; see `serve`."""
        host, port = opened.getsockname()[:2]
        scheme = "https" if self._config.certificate else "http"
        self._address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        logger.info("%s: listening; the model is being loaded", self._address)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        server = _Server(self._uvicorn_config(), self._config.header_timeout)
        serving = asyncio.ensure_future(server.serve(sockets=[opened]))
        engine = asyncio.ensure_future(self._link.run(self._ready))
        draining = asyncio.ensure_future(self._drained())
        try:
            await asyncio.wait({serving, engine, draining}, return_when=asyncio.FIRST_COMPLETED)
            return self._code(serving, engine)
        finally:
            server.should_exit = True
            server.force_exit = self._again.is_set()
            draining.cancel()
            await self._link.close()
            await asyncio.wait({serving, engine}, timeout=_CUT_WITHIN)

    def _code(self, serving: asyncio.Future[None], engine: asyncio.Future[None]) -> int:
        if serving.done() and (wrong := serving.exception()):
            logger.error("the server has ended: %s", wrong)
            return FAILED
        if engine.done() and (error := engine.exception()):
            if isinstance(error, EngineFailedError) and not self._link.restarts:
                raise error
            logger.error("%s", error)
            return FAILED
        return 128 + self._signal if self._state.cut_requests or self._again.is_set() else 0

    def _uvicorn_config(self) -> uvicorn.Config:
        return uvicorn.Config(
            make_app(self._state),
            http=bounded_protocol(Connections(self._config, open_files(), self._refused, self._shaken)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(_CUT_WITHIN),
            ssl_certfile=self._config.certificate,
            ssl_keyfile=self._config.certificate_key,
        )

    def _refused(self, code: str) -> None:
        """A request was refused before it reached the application."""
        self._state.metrics.rejected.labels(code).inc()

    def _shaken(self, state: str) -> None:
        """A handshake of TLS was started or completed."""
        self._state.metrics.handshakes.labels(state).inc()

    async def _ready(self) -> None:
        logger.info(
            "%s: ready; model %s; the page is at this address, the API under /v1",
            self._address,
            self._state.catalog.name,
        )

    def _stop(self, number: int) -> None:
        """The first signal drains; a second one ends the server now."""
        if self._signal:
            self._state.cut.set()
            self._again.set()
            return
        self._signal = number
        logger.info(
            "%s: %d requests are finished first, for at most %g s; a second signal ends them",
            signal.Signals(number).name,
            self._state.admission.open,
            self._config.drain_timeout,
        )
        self._state.draining.set()

    async def _drained(self) -> None:
        """Returns when a signal has come, and nothing runs any more."""
        await self._state.draining.wait()
        deadline = time.monotonic() + self._config.drain_timeout
        while self._state.admission.open and time.monotonic() < deadline and not self._again.is_set():
            await asyncio.sleep(0.02)
        self._state.cut.set()
        deadline = time.monotonic() + _CUT_WITHIN
        while self._state.admission.open and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
