"""/openapi.json, made from the dataclasses that check the requests."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Collection
from functools import cache
from typing import Any

from pangu_alpha import __version__
from pangu_alpha.config.option import Option, option_of
from pangu_alpha.config.schema import field_types
from pangu_alpha.serving.wire.catalog import Catalog
from pangu_alpha.serving.wire.chat import ROLES
from pangu_alpha.serving.wire.examples import example_bodies
from pangu_alpha.serving.wire.fields import (
    ABSENT,
    IGNORED,
    MOST_BIASES,
    MOST_STOP_LETTERS,
    MOST_STOPS,
    ChatFields,
    CompletionFields,
    DetokenizeFields,
    Message,
    Part,
    TokenizeFields,
)

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ERRORS = {
    "400": "the request is wrong",
    "401": "no key, or an unknown one",
    "403": "the key or the host is not allowed",
    "404": "no such model or path",
    "405": "the path has other methods",
    "408": "the request did not arrive, or was not finished, in time",
    "413": "the body is too large",
    "415": "the body is not application/json",
    "429": "a limit is reached, or the queue is full",
    "431": "the headers are too large",
    "500": "an error of the server",
    "503": "loading, draining, or starting the engine again",
}
_OBJECT: dict[str, Any] = {"type": "object"}
_LIST: dict[str, Any] = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _OBJECT}},
}
_USAGE = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": {
        name: {"type": "integer", "minimum": 0}
        for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    },
}


def _answer(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    choice = {
        "type": "object",
        "required": ["index", *content, "finish_reason"],
        "properties": {
            "index": {"type": "integer", "minimum": 0},
            **content,
            "finish_reason": {"enum": ["stop", "length"]},
            "stop_reason": {"type": ["string", "null"]},
            "logprobs": {"type": ["object", "null"]},
        },
    }
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "usage"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": kind},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "system_fingerprint": {"type": "string"},
            "choices": {"type": "array", "items": choice},
            "usage": _USAGE,
            "x_seed": {"type": "integer"},
        },
    }


_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"const": "assistant"}, "content": {"type": "string"}},
}
_IDS = {"type": "array", "items": {"type": "integer"}}
_POSTS: dict[str, tuple[type, dict[str, Any]]] = {
    "/v1/completions": (CompletionFields, _answer("text_completion", {"text": {"type": "string"}})),
    "/v1/chat/completions": (ChatFields, _answer("chat.completion", {"message": _MESSAGE})),
    "/tokenize": (TokenizeFields, {"type": "object", "required": ["count"], "properties": {"tokens": _IDS}}),
    "/detokenize": (
        DetokenizeFields,
        {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
    ),
}
_GETS: dict[str, dict[str, Any]] = {
    "/v1/models": _LIST,
    "/v1/models/{id}": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
    "/v1/tasks": _LIST,
    "/tokenizer_info": {"type": "object", "required": ["eos_token"]},
    "/health": {"type": "object", "required": ["status"]},
    "/health/ready": {"type": "object", "required": ["status"]},
    "/version": {"type": "object", "required": ["version"]},
    "/openapi.json": {"type": "object", "required": ["openapi"]},
}
_STOP = {"type": "string", "minLength": 1, "maxLength": MOST_STOP_LETTERS}
_BIAS = {
    "type": "object",
    "maxProperties": MOST_BIASES,
    "propertyNames": {"pattern": "^[0-9]{1,9}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}
_NULL = {"type": "null"}
# What the rules of the dataclasses ask for beyond types and bounds, as far as a schema can say it.
_NARROWER: dict[tuple[type, str], dict[str, Any]] = {
    (Message, "role"): {"enum": [*ROLES]},
    (Part, "type"): {"const": "text"},
    (ChatFields, "messages"): {"minItems": 1},
}
for _cls in (CompletionFields, ChatFields):
    _NARROWER[_cls, "stop"] = {
        "anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MOST_STOPS}, _NULL]
    }
    _NARROWER[_cls, "logit_bias"] = {"anyOf": [_BIAS, _NULL]}
_TEXTS = {"/metrics": "text/plain", "/": "text/html", "/page/{name}": "*/*"}


def document(catalog: Catalog, allowed: Collection[str] = ()) -> dict[str, Any]:
    """The description of the interface, with examples that a client can send.

    Args:
        allowed: See `Catalog.scenario`.
    """
    found = _document()
    paths = found["paths"]
    for path, bodies in example_bodies(catalog, allowed).items():
        if not bodies:
            continue
        shown = {"examples": {name: {"value": body} for name, body in bodies.items()}}
        for each in {path, f"/v1{path.removeprefix('/v1')}"}:
            paths = {**paths, each: {"post": _with_examples(paths[each]["post"], shown)}}
    return {**found, "paths": paths}


def _with_examples(operation: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    body = operation["requestBody"]
    content = {kind: {**each, **shown} for kind, each in body["content"].items()}
    return {**operation, "requestBody": {**body, "content": content}}


@cache
def _document() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    operation: dict[str, Any]
    for path, (cls, answer) in _POSTS.items():
        operation = {
            "operationId": _name(path),
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(cls)}}},
            "responses": _responses({"application/json": {"schema": answer}}),
        }
        if path.startswith("/v1/"):  # these can stream
            operation["responses"]["200"]["content"]["text/event-stream"] = {}  # no schema fits all readers
        paths[path] = {"post": operation}
    for path, answer in _GETS.items():
        paths[path] = {"get": _get(path, {"application/json": {"schema": answer}})}
    for path, kind in _TEXTS.items():
        paths[path] = {"get": _get(path, {kind: {"schema": {"type": "string"}}})}
    for path in ("/tokenize", "/detokenize", "/tokenizer_info"):
        method, operation = next(iter(paths[path].items()))
        paths[f"/v1{path}"] = {method: {**operation, "operationId": _name(f"/v1{path}")}}
    schemas = {cls.__name__: _schema(cls) for cls, _ in _POSTS.values()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "PanGu-alpha", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _get(path: str, content: dict[str, Any]) -> dict[str, Any]:
    names = [word[1:-1] for word in path.split("/") if word.startswith("{")]
    operation: dict[str, Any] = {"operationId": _name(path), "responses": _responses(content)}
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if path.startswith("/page") or path == "/":
        operation["responses"]["304"] = {"description": "unchanged"}
    if path.startswith("/health"):
        operation["responses"]["503"] = {"description": "not so", "content": content}
    return operation


def _responses(content: dict[str, Any]) -> dict[str, Any]:
    failed = {"application/json": {"schema": _ERROR}}
    found: dict[str, Any] = {"200": {"description": "the answer", "content": dict(content)}}
    return found | {code: {"description": words, "content": failed} for code, words in _ERRORS.items()}


def _name(path: str) -> str:
    return path.strip("/").replace("/", "_").replace("{", "").replace("}", "").replace(".", "_") or "index"


def _ref(cls: type) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{cls.__name__}"}


def _schema(cls: type) -> dict[str, Any]:
    """The JSON schema of a dataclass."""
    hints, properties, required = field_types(cls), {}, []
    for field in dataclasses.fields(cls):
        declared = option_of(field)
        assert declared is not None
        narrower = _NARROWER.get((cls, field.name), {})
        properties[field.name] = {**_property(hints[field.name], declared), **narrower}
        if field.default is dataclasses.MISSING:
            required.append(field.name)
    if cls in (CompletionFields, ChatFields):
        properties |= {name: {"description": "accepted, without effect"} for name in IGNORED}
        properties |= {name: {"enum": [neutral, None]} for name, neutral in ABSENT.items()}
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": required} if required else found


def _property(hint: Any, declared: Option) -> dict[str, Any]:
    bounds = {
        word: bound
        for word, bound in (
            ("minimum", declared.at_least),
            ("exclusiveMinimum", declared.above),
            ("maximum", declared.at_most),
            ("exclusiveMaximum", declared.below),
        )
        if bound is not None
    }
    shape = _shape(hint)
    if "anyOf" in shape:
        shape = {"anyOf": [_bounded(each, bounds) for each in shape["anyOf"]]}
    return {**_bounded(shape, bounds), "description": declared.plain()}


def _bounded(shape: dict[str, Any], bounds: dict[str, Any]) -> dict[str, Any]:
    return {**shape, **bounds} if shape.get("type") in ("integer", "number") else shape


def _shape(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is type(None):
        return {"type": "null"}
    if dataclasses.is_dataclass(hint):
        return _schema(hint)  # type: ignore[arg-type]
    if origin is tuple:
        return {"type": "array", "items": _shape(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _shape(arguments[1])}
    assert origin in (typing.Union, types.UnionType)
    return {"anyOf": [_shape(each) for each in arguments]}
