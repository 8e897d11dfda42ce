"""The table of routes, as an ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from pangu_alpha.serving.front import routes
from pangu_alpha.serving.front.outer import EXCHANGE, Outer, print_line
from pangu_alpha.serving.front.pages import page_files
from pangu_alpha.serving.front.state import State


class Endpoint:
    """A handler as an ASGI application."""

    def __init__(self, state: State, handler: routes.Handler) -> None:
        self._state, self._handler = state, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls the handler with the exchange that the outer application has made."""
        exchange = scope[EXCHANGE]
        exchange.path_params = scope["path_params"]
        await self._handler(self._state, exchange)


def make_app(state: State, log: Callable[[dict[str, Any]], None] = print_line) -> ASGIApp:
    """Makes the application.

    Args:
        log: Takes the facts of each finished exchange.
    """
    pages = routes.Pages(page_files())
    table: list[tuple[str, str, routes.Handler]] = [
        ("POST", "/v1/completions", routes.completions),
        ("POST", "/v1/chat/completions", routes.chat_completions),
        ("GET", "/v1/models", routes.models),
        ("GET", "/v1/models/{id:path}", routes.model),
        ("GET", "/v1/tasks", routes.tasks),
        ("GET", "/health", routes.health),
        ("GET", "/health/ready", routes.ready),
        ("GET", "/metrics", routes.figures),
        ("GET", "/version", routes.version),
        ("GET", "/openapi.json", routes.openapi),
        ("GET", "/", pages),
        ("GET", "/page/{name}", pages),
        ("GET", "/favicon.ico", routes.no_icon),
    ]
    for prefix in ("", "/v1"):  # lm-evaluation-harness looks at the top
        table += [
            ("POST", f"{prefix}/tokenize", routes.tokenize),
            ("POST", f"{prefix}/detokenize", routes.detokenize),
            ("GET", f"{prefix}/tokenizer_info", routes.tokenizer_info),
        ]
    made = [Route(path, Endpoint(state, handler), methods=[method]) for method, path, handler in table]
    # A router alone: Starlette's own middleware would answer our errors as text.
    return Outer(Router(made, redirect_slashes=False), state, log)
