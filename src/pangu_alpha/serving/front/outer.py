"""What happens to every exchange: its id, host, key and origin, errors as JSON, and one line in the log.

A plain ASGI application, because a framework's middleware hides from a handler that the client has gone.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from pangu_alpha.config.serve import LOOPBACK
from pangu_alpha.files.shown import shown_json
from pangu_alpha.serving.access.keys import presented
from pangu_alpha.serving.front.exchange import ClientGoneError, Exchange
from pangu_alpha.serving.front.state import State
from pangu_alpha.serving.wire.errors import ApiError

logger = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPEN = ("/health", "/health/ready")  # for probes, which have no key
_CLIENT_GONE = 499  # in the log only; nobody reads the answer
_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, OPTIONS",
    "access-control-allow-headers": "authorization, content-type, x-request-id, x-timeout",
    "access-control-max-age": "600",
}
EXCHANGE = "pangu.exchange"  # its key in the scope, for the handlers


def print_line(facts: dict[str, Any]) -> None:
    """Writes a line of JSON to standard output."""
    sys.stdout.write(shown_json(json.dumps(facts, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


class Outer:
    """Wraps the application.

    Args:
        inner: Answers by the exchange in its scope.
        log: Takes the facts of each finished exchange.
    """

    def __init__(
        self, inner: ASGIApp, state: State, log: Callable[[dict[str, Any]], None] = print_line
    ) -> None:
        self._inner, self._state, self._log = inner, state, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one exchange of HTTP."""
        if scope["type"] != "http":
            return
        given = Headers(scope=scope).get("x-request-id", "")
        own = given if _ID.fullmatch(given) else uuid.uuid4().hex
        exchange = Exchange(scope, receive, send, self._state.config, own)
        if self._state.draining.is_set():
            exchange.headers["connection"] = "close"
        try:
            await self._answer(exchange, {**scope, EXCHANGE: exchange, "app": self}, receive, send)
        except ClientGoneError:
            exchange.status = _CLIENT_GONE
        except ApiError as error:
            await self._fail(exchange, error)
        except HTTPException as error:
            await self._fail(exchange, _routing_error(error))
        except Exception:
            logger.exception("request %s", exchange.id)
            await self._fail(exchange, ApiError(500, "an error of the server; see its log", "internal_error"))
        finally:
            self._note(exchange)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_host(exchange)
        if await self._cross_origin(exchange):
            return
        self._check_key(exchange)
        await self._inner(scope, receive, send)

    async def _fail(self, exchange: Exchange, error: ApiError) -> None:
        if exchange.status is not None:  # the answer has begun; all that is left is to end it
            return
        if error.status in (429, 503):
            self._state.metrics.rejected.labels(error.code or "other").inc()
        try:
            await exchange.send_error(error)
        except ClientGoneError:
            exchange.status = _CLIENT_GONE

    def _check_host(self, exchange: Exchange) -> None:
        """Refuses other names on a loopback address: a web page could have bound its own name to it.

        Probes may have any name, or none.
        """
        config = self._state.config
        if not config.loopback or exchange.scope["path"] in _OPEN:
            return
        host = exchange.asked.get("host", "")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if name.strip("[]").lower() not in (*LOOPBACK, *(each.lower() for each in config.allowed_host)):
            raise ApiError(
                403, f"the server is not called {name[:80]!r}; allowed_host adds names", "host_not_allowed"
            )

    async def _cross_origin(self, exchange: Exchange) -> bool:
        """Adds the headers for pages of other sites; returns whether the exchange was only a question."""
        origin = exchange.asked.get("origin")
        if not self._state.config.cors_origin:
            return False
        exchange.headers["vary"] = "Origin"
        if origin not in self._state.config.cors_origin:
            return False
        exchange.headers["access-control-allow-origin"] = origin
        exchange.headers["access-control-expose-headers"] = "x-request-id, retry-after"
        if exchange.scope["method"] != "OPTIONS":
            return False
        await exchange.send_bytes(204, b"", "", _PREFLIGHT)
        return True

    def _check_key(self, exchange: Exchange) -> None:
        path = exchange.scope["path"]
        if not self._state.keys or path in _OPEN:
            return
        secret = presented(exchange.asked.get("authorization", ""))
        exchange.key = None if secret is None else self._state.keys.find(secret)
        if exchange.key is None:
            browser = path == "/" or path.startswith("/page/")
            how = 'Basic realm="PanGu-alpha", charset="UTF-8"' if browser else "Bearer"
            what = "no key was given" if secret is None else "the key is not known"
            raise ApiError(
                401,
                f"{what}; send it as `Authorization: Bearer KEY`",
                "invalid_api_key",
                headers={"WWW-Authenticate": how},
            )

    def _note(self, exchange: Exchange) -> None:
        """Writes the line of an exchange; probes and figures, which come every second, are left out."""
        path = exchange.scope["path"]
        if path in (*_OPEN, "/metrics") and exchange.status in (200, 503):
            return
        self._log(
            {
                "time": round(time.time(), 3),
                "id": exchange.id,
                "key": exchange.key.name if exchange.key else None,
                "method": exchange.scope["method"],
                "path": path[:200],
                "status": exchange.status,
                **exchange.facts,
                "total": round(time.monotonic() - exchange.arrived, 4),
            }
        )


def _routing_error(error: HTTPException) -> ApiError:
    """The router's own errors, which it raises because the scope names an app."""
    words = {
        404: ("there is no such path", "not_found"),
        405: ("this path has other methods", "wrong_method"),
    }
    message, code = words.get(error.status_code, (str(error.detail), None))
    return ApiError(error.status_code, message, code, headers=error.headers)
