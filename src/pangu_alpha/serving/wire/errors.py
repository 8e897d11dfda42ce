"""The errors of the HTTP interface, in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
}
_MOST_PROBLEMS = 50  # in one message; a body of a megabyte can have a hundred thousand


class ApiError(Exception):
    """An answer that is not a success.

    Args:
        code: A word for programs, or None.
        param: The field of the request that is at fault, if it is a single one.
        retry_after: Seconds after which the same request may succeed; None sends no such header.
        headers: Further headers.
        facts: Further members of the error object; their names begin with x_.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.facts = facts
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, round(retry_after)))
        elif status in (408, 409, 429) or status >= 500:
            # OpenAI's clients repeat these by themselves; here that could not help.
            self.headers["x-should-retry"] = "false"

    def json(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = _TYPES.get(self.status, "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**error, **self.facts}}


def invalid(problems: list[str]) -> ApiError:
    """The error for a request with one or more problems, each of the form "field: what is wrong"."""
    fields = {problem.partition(":")[0].partition("[")[0].partition(".")[0] for problem in problems}
    param = fields.pop() if len(fields) == 1 else None
    if len(problems) > _MOST_PROBLEMS:
        problems = [*problems[:_MOST_PROBLEMS], f"and {len(problems) - _MOST_PROBLEMS:,} more"]
    known = param if param and param.replace("_", "").isalnum() and " " not in param else None
    return ApiError(400, "; ".join(problems), "invalid_value", known)
