"""A server without a model for the page: known texts at a known pace, and the refusals that a test asks for.

It has the routes, headers, events and errors of the real front. It has no engine and no tokenizer:
a character is one token.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pangu_alpha.inference.tasks import TASKS

TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TITLES = {
    "summary": ("Summary", "摘要"),
    "title": ("Headline", "标题"),
    "passage_question": ("Reading", "阅读理解"),
    "question": ("Question", "问答"),
    "dialogue": ("Next turn", "接话"),
    "persona_dialogue": ("Persona", "人物对话"),
    "essay": ("Essay", "作文"),
    "advertisement": ("Advertisement", "广告"),
    "couplet": ("Couplet", "对联"),
}
LABELS = {
    "text": "正文",
    "passage": "文章",
    "question": "问题",
    "history": "前文",
    "turn": "这一句",
    "name": "名字",
    "persona": "人设",
    "title": "题目",
    "opening": "开头",
    "product": "产品",
    "features": "特点",
    "first": "上联",
}
LONG_FIELDS = ("text", "passage", "history", "opening")
SOLVED = {"couplet": [{"first": "春风得意花千树", "second": "秋月澄明水一江"}]}
SCENARIOS = [
    {
        "id": "pangu/refrigerator",
        "title": {"en": "Talking refrigerator", "zh": "会说话的冰箱"},
        "description": {"en": "It knows what is in it.", "zh": "它知道自己肚子里有什么。"},
        "task": "persona_dialogue",
        "fields": ["turn"],
        "greeting": "你好，我是小冰，今天想吃点什么？",
        "sampling": {"temperature": 0.6, "top_p": 0.85, "max_tokens": 64},
    },
    {
        "id": "pangu/shop",
        "title": {"en": "Shop sign", "zh": "店铺广告"},
        "description": {"en": "Advertises a tea shop.", "zh": "替茶馆写广告。"},
        "task": "advertisement",
        "fields": ["features"],
        "greeting": None,
        "sampling": {"temperature": 0.9},
    },
]
STORY = (
    "引兵至濮阳城下，见城上旌旗整齐，料有准备，便教军士退三十里下寨。是夜月明星稀，操与众谋士登高而望，"
    "叹曰：“此城若得，山东可定。”荀彧曰：“主公且宽心，待其粮尽，自然有变。”"
)


def task_of(name: str) -> dict[str, Any]:
    """A task as GET /v1/tasks lists it."""
    task = TASKS[name]
    return {
        "id": name,
        "title": dict(zip(("en", "zh"), TITLES[name], strict=True)),
        "summary": task.summary,
        "prompt": task.prompt,
        "fields": [
            {
                "name": one,
                "label": {"en": one.capitalize(), "zh": LABELS[one]},
                "multiline": one in LONG_FIELDS,
                "example": f"{LABELS[one]}的例子",
            }
            for one in task.fields
        ],
        "answer": {"name": task.answer, "label": {"en": task.answer.capitalize(), "zh": "答"}},
        "separator": task.separator,
        "stop": [*task.stop],
        "examples": SOLVED.get(name, []),
    }


def chances(place: int, letter: str) -> dict[str, float]:
    """Log-probabilities of five texts for one place; the text that was chosen is among them."""
    chosen = (0.92, 0.41, 0.07, 0.66, 0.23)[place % 5]
    others = [other for other in "之曰也遂乃又" if other != letter][:4]
    shares = (0.5, 0.25, 0.15, 0.05)
    ordered = [(letter, chosen)] + [(o, (1 - chosen) * s) for o, s in zip(others, shares, strict=True)]
    return {text: math.log(part) for text, part in sorted(ordered, key=lambda pair: -pair[1])}


@dataclass
class Stub:
    """What the server does, and what it saw."""

    text: str = STORY
    texts: tuple[str, ...] = ()  # of the samples, if they differ
    top: list[tuple[str, float]] | None = None  # texts and log-probabilities of every token, if not made up
    finish: str = "length"
    stop_reason: str | None = None
    delay: float = 0.0  # seconds before every token
    key: str | None = None
    context: int = 512
    only_scenarios: bool = False
    refusals: list[tuple[int, str, int | None]] = field(default_factory=list)  # status, code, seconds
    broken_after: int | None = None  # tokens, then the connection ends
    error_after: int | None = None  # tokens, then an error event
    loading: bool = False
    all_loading: bool = False  # the other routes, too
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    running: int = 0
    cancelled: int = 0

    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of the requests for text, in order."""
        return [body for path, body in self.seen if path.endswith("completions")]

    def refusal(self, request: Request) -> Response | None:
        """The refusal that is due, if any."""
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return error(401, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if self.all_loading:
            return error(503, "loading", headers={"Retry-After": "1"})
        if request.url.path.endswith("completions") and self.refusals:
            status, code, seconds = self.refusals.pop(0)
            return error(status, code, headers={} if seconds is None else {"Retry-After": str(seconds)})
        return None

    def prompt(self, body: dict[str, Any]) -> str:
        """The text to continue."""
        if "messages" in body:
            return "\n".join(turn["content"] for turn in body["messages"])
        if "task" in body:
            return TASKS[body["task"]].render(body["fields"], body.get("examples") or ())
        return body["prompt"] if body.get("prompt") else "".join(body.get("fields", {}).values())

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions and /v1/chat/completions; the page always streams."""
        body = await request.json()
        self.seen.append((request.url.path, body))
        if refused := self.refusal(request):
            return refused
        size = len(self.prompt(body))
        if size + body["max_tokens"] > self.context:
            details = {"x_prompt_tokens": size, "x_max_model_len": self.context}
            return error(400, "context_length_exceeded", **details)
        if not body.get("stream"):
            return JSONResponse({"choices": []})
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(self.events(body), media_type="text/event-stream", headers=headers)

    async def events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        """The chunks of an answer; a client that leaves frees the slot."""
        self.running += 1
        try:
            async for event in self.chunks(body):
                yield f"data: {event}\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def chunks(self, body: dict[str, Any]) -> AsyncIterator[str]:
        """The data of the events: a token of each sample in turn."""
        samples = range(body.get("n") or 1)
        texts = [(self.texts[i] if self.texts else self.text)[: body["max_tokens"]] for i in samples]
        for place in range(max(map(len, texts))):
            await asyncio.sleep(self.delay)
            if place == self.broken_after:
                return
            if place == self.error_after:
                yield json.dumps({"error": {"message": "the engine is gone", "code": "engine_lost"}})
                yield "[DONE]"
                return
            for index, text in enumerate(texts):
                if place < len(text):
                    last = place == len(text) - 1
                    yield json.dumps(self.chunk("messages" in body, index, place, text[place], last))
        yield "[DONE]"

    def chunk(self, chat: bool, index: int, place: int, letter: str, last: bool) -> dict[str, Any]:
        """One token of one sample."""
        finish = self.finish if last else None
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        pairs = self.top or [*chances(place + index, letter).items()]
        top = dict(reversed(pairs))
        if chat:
            found = [{"token": text, "logprob": part} for text, part in pairs]
            entry = {"token": letter, "logprob": top[letter], "top_logprobs": found}
            choice |= {"delta": {"content": letter}, "logprobs": {"content": [entry]}}
        else:
            lists = {"tokens": [letter], "token_logprobs": [top[letter]], "top_logprobs": [top]}
            choice |= {"text": letter, "logprobs": {**lists, "text_offset": [place]}}
            choice["stop_reason"] = self.stop_reason if last else None
        return {"id": "cmpl-1", "created": 1, "model": "pangu", "x_seed": 20210426, "choices": [choice]}

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize of a prompt or a task: one token a character."""
        body = await request.json()
        self.seen.append((request.url.path, body))
        if refused := self.refusal(request):
            return refused
        prompt = self.prompt(body)
        found = {"tokens": [*range(len(prompt))], "count": len(prompt), "prompt": prompt}
        return JSONResponse({**found, "max_model_len": self.context})

    async def tasks(self, request: Request) -> Response:
        """GET /v1/tasks."""
        found = {"object": "list", "data": [task_of(name) for name in TASKS]}
        return self.refusal(request) or JSONResponse(found)

    async def models(self, request: Request) -> Response:
        """GET /v1/models: the base model and two scenarios."""
        common = {"object": "model", "max_model_len": self.context, "max_samples": 8}
        base = {**common, "id": "pangu", "kind": "base", "description": {"en": "base", "zh": "base"}}
        found = [{**common, "kind": "scenario", "parent": "pangu", **one} for one in SCENARIOS]
        listed = found if self.only_scenarios else [base, *found]
        return self.refusal(request) or JSONResponse({"object": "list", "data": listed})

    async def ready(self, request: Request) -> Response:
        """GET /health/ready."""
        status = "loading" if self.loading else "ready"
        return JSONResponse({"status": status}, 503 if self.loading else 200)

    def application(self, page: Path) -> Starlette:
        """The ASGI application that serves the page's folder and the wire."""
        files = {path.name: path.read_bytes() for path in page.iterdir()}

        async def show(request: Request) -> Response:
            name = request.path_params.get("name", "index.html")
            if name not in files:
                return error(404, "not_found")
            headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
            return Response(files[name], media_type=TYPES[Path(name).suffix], headers=headers)

        posts = {"/v1/completions": self.complete, "/v1/chat/completions": self.complete}
        gets = {"/": show, "/page/{name}": show, "/v1/tasks": self.tasks, "/v1/models": self.models}
        posts["/tokenize"] = self.tokenize

        async def no_icon(request: Request) -> Response:
            return Response(status_code=204)

        return Starlette(
            routes=[
                *(Route(path, act, methods=["POST"]) for path, act in posts.items()),
                *(Route(path, act) for path, act in gets.items()),
                Route("/health/ready", self.ready),
                Route("/favicon.ico", no_icon),
            ]
        )


def error(status: int, code: str, headers: dict[str, str] | None = None, **details: int) -> Response:
    """A refusal in OpenAI's form."""
    content = {"message": f"refused: {code}", "type": "error", "param": None, "code": code, **details}
    return JSONResponse({"error": content}, status, headers)
