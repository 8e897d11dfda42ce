"""What langchain-openai gets from a server, as one line of JSON: `python langchain_client.py URL`."""

import asyncio
import json
import sys
import time
import urllib.request

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

URL = sys.argv[1]
COMMON = {"base_url": f"{URL}/v1", "api_key": "x", "max_retries": 0, "timeout": 30}
TALK = [SystemMessage("小冰，一台冰箱"), HumanMessage("却说")]


def chat(**options):
    return ChatOpenAI(**{"model": "pangu", "temperature": 0, "max_tokens": 6, **COMMON, **options})


def told(message):
    return {
        "text": message.content,
        "usage": message.usage_metadata,
        "reason": message.response_metadata.get("finish_reason"),
        "logprobs": (message.response_metadata.get("logprobs") or {}).get("content"),
    }


def streamed(stream):
    pieces = list(stream)
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    return {"pieces": len([piece for piece in pieces if piece.content]), **told(total)}


def refused(**options):
    try:
        chat(**options).invoke(TALK)
    except openai.APIStatusError as error:
        own = isinstance(error, openai.NotFoundError | openai.BadRequestError)
        return [error.status_code, error.code, own]


def running():
    with urllib.request.urlopen(URL + "/health/ready", timeout=30) as answer:
        return json.load(answer)["running"]


def left():
    """Leaves a long stream after its first piece; returns what runs at that time, and a little later."""
    stream = chat(max_tokens=100).stream(TALK)
    next(stream)
    before = running()
    stream.close()
    deadline = time.monotonic() + 20
    while running() and time.monotonic() < deadline:
        time.sleep(0.02)
    return [before, running()]


async def at_once():
    return [each.content for each in await chat().abatch([TALK] * 6)]


text = OpenAI(model="pangu", temperature=0, max_tokens=8, **COMMON)
found = {
    "chat": told(chat().invoke(TALK)),
    "logprobs": told(chat(logprobs=True, top_logprobs=2).invoke(TALK)),
    "stream": streamed(chat(stream_usage=True).stream(TALK)),
    "together": asyncio.run(at_once()),
    "text": text.invoke("却说"),
    "texts": [each[0].text for each in text.generate(["却说", "曹操"]).generations],
    "text_stream": list(text.stream("却说")),
    "refused": [refused(model="nobody"), refused(max_tokens=10**6)],
    "left": left(),
}
print(json.dumps(found))
