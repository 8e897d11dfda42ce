"""The table of routes, as an ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pangu_alpha.serving.front import routes
from pangu_alpha.serving.front.outer import EXCHANGE, Outer, print_line
from pangu_alpha.serving.front.pages import page_files
from pangu_alpha.serving.front.state import State
from pangu_alpha.serving.wire.errors import ApiError


class Endpoint:
    """A handler as an ASGI application."""

    def __init__(self, state: State, handler: routes.Handler) -> None:
        self._state, self._handler = state, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls the handler with the exchange that the outer application has made."""
        await self._handler(self._state, scope[EXCHANGE])


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
    ]
    for prefix in ("", "/v1"):  # lm-evaluation-harness looks at the top
        table += [
            ("POST", f"{prefix}/tokenize", routes.tokenize),
            ("POST", f"{prefix}/detokenize", routes.detokenize),
            ("GET", f"{prefix}/tokenizer_info", routes.tokenizer_info),
        ]
    made = [Route(path, Endpoint(state, handler), methods=[method]) for method, path, handler in table]
    app = Starlette(routes=made, exception_handlers={HTTPException: _as_ours})
    app.router.redirect_slashes = False
    return Outer(app, state, log)


async def _as_ours(request: Request, error: Exception) -> Any:
    """Turns Starlette's own answers, 404 and 405, into ours."""
    assert isinstance(error, HTTPException)
    words = {404: ("there is no such path", "not_found"), 405: ("this path has other methods", "wrong_method")}
    message, code = words.get(error.status_code, (str(error.detail), None))
    raise ApiError(error.status_code, message, code, headers=error.headers)
