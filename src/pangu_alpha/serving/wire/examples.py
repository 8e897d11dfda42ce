"""The requests that /openapi.json shows as examples. Each can be sent as it stands."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pangu_alpha.serving.wire.catalog import Catalog

_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_ASKED = [{"role": "user", "content": "你好，今天天气怎么样？"}]
_COMPLETIONS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "却说曹操", "max_tokens": 16, "temperature": 0.8},
    "stream": {"prompt": "却说曹操", "max_tokens": 16, "seed": 1, **_STREAMED},
    "scores": {"prompt": "中国的首都是北京", "max_tokens": 0, "echo": True, "logprobs": 2},
    "task": {"task": "couplet", "fields": {"first": "海阔凭鱼跃"}, "max_tokens": 16},
}
_CHATS: dict[str, dict[str, Any]] = {
    "question": {"messages": _ASKED, "max_tokens": 16},
    "persona": {
        "messages": [{"role": "system", "content": "乙是一位唐代诗人，喜欢饮酒。"}, *_ASKED],
        "max_tokens": 16,
        "logprobs": True,
        "top_logprobs": 2,
    },
    "stream": {"messages": _ASKED, "max_tokens": 16, "seed": 1, **_STREAMED},
}
_SCENARIO: dict[str, Any] = {"messages": _ASKED}  # the scenario says how long its answer is
_OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "/tokenize": {"text": {"prompt": "中国的首都是"}, "chat": {"messages": _ASKED}},
    "/detokenize": {"ids": {"tokens": [20, 21, 22]}},
}


def example_bodies(catalog: Catalog, allowed: Collection[str] = ()) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns bodies by the route's path and the example's name.

    Args:
        allowed: See `Catalog.scenario`; the examples name only models that this client may use.
    """
    whole = {} if allowed else {"model": catalog.name}
    chats = {name: {**whole, **body} for name, body in _CHATS.items() if whole}
    talking = next((name for name in catalog.names(allowed) if catalog.scenarios[name].converses), None)
    if talking is not None:
        chats["scenario"] = {"model": f"{catalog.name}/{talking}", **_SCENARIO}
    texts = {name: {**whole, **body} for name, body in _COMPLETIONS.items() if whole}
    return {"/v1/completions": texts, "/v1/chat/completions": chats, **_OTHERS}
