"""Damaged files out of good ones: bytes changed, cut and repeated; values of JSON replaced; files blown up.

A case is a function of its number alone, so one that failed is found again by its number.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

LARGEST = 1_000_000  # bytes of a blown-up file

# What readers have stumbled over: numbers beyond their range, other forms' words, half characters, nesting.
_NASTY = (
    b"\x00", b"\x80", b"\xff" * 9 + b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"-1", b"0", b"1e999", b"9" * 30, b"9" * 4400, b"18446744073709551616", b"-0.0", b"0x10", b"1.5",
    b"NaN", b"Infinity", b"null", b"true", b"[]", b"{}", b'""', b'{"a":1,"a":2}', b"\\ud800", b"\\u0000",
    b"..", b"/", b"~", b"$(id)", b"\x1b[31m", b"[" * 3000, b'{"a":' * 3000, b"&a ", b"*a", b"<<: ", b"!!int ",
    b"!!python/object:os.system ", b"2026-13-45", b"1:30", b"? ", b"- ", b": ", b"\t", b"\r", b"\n\n", b"|",
)  # fmt: skip

_VALUES = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1.5, float("nan"), float("inf"), "", "a", "..", "/etc/passwd",
    "\x00", "\x1b[2J", "\ud800", "x" * 5000, [], {}, [[]], [None], ["a"], {"a": 1}, [2**62] * 3,
)  # fmt: skip


def mutated(content: bytes, random: Random) -> bytes:
    """A damaged copy: one to six small changes, or now and then random bytes, or one part many times."""
    kind = random.random()
    if kind < 0.03:
        return random.randbytes(random.choice((0, 1, 8, 300, 20_000)))
    if kind < 0.07:
        return blown_up(content, random)
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        _change(changed, random)
    return bytes(changed)


def blown_up(content: bytes, random: Random) -> bytes:
    """A file of up to a megabyte: one part of a good one, or a nasty word, repeated in its place."""
    start = random.randrange(len(content) + 1)
    stop = min(len(content), start + random.choice((0, 1, 3, 20, 100, 1000)))
    part = content[start:stop] if stop > start and random.random() < 0.5 else random.choice(_NASTY)
    times = max(1, (LARGEST - len(content)) // len(part))
    return content[:start] + part * times + content[stop:]


def mutated_json(value: Any, random: Random) -> bytes:
    """A JSON value with one to three places replaced, renamed, doubled or removed; or as `mutated`."""
    if random.random() < 0.4:
        return mutated(json.dumps(value, ensure_ascii=False, indent=1).encode(), random)
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 3))):
        value = _replaced(value, random)
    return json.dumps(value).encode()


def _change(content: bytearray, random: Random) -> None:
    if not content:
        content += random.choice(_NASTY)
        return
    start = random.randrange(len(content))
    stop = min(len(content), start + random.choice((1, 1, 2, 4, 8, 32, 200)))
    kind = random.randrange(8)
    if kind == 0:
        content[start] ^= 1 << random.randrange(8)
    elif kind == 1:
        content[start] = random.randrange(256)
    elif kind == 2:
        del content[start:stop]
    elif kind == 3:
        content[start:start] = content[start:stop]
    elif kind == 4:
        content[start:start] = random.choice(_NASTY)
    elif kind == 5:
        content[start:stop] = random.choice(_NASTY)
    elif kind == 6:
        other = random.randrange(len(content))
        content[start:stop] = content[other : other + stop - start]
    elif random.random() < 0.2:
        del content[start:]


def _replaced(value: Any, random: Random) -> Any:
    if not isinstance(value, dict | list) or not value or random.random() < 0.15:
        return copy.deepcopy(random.choice(_VALUES))  # it may be changed in its turn
    places: Sequence[Any] = list(value) if isinstance(value, dict) else range(len(value))
    place, kind = random.choice(places), random.random()
    if kind < 0.1:
        value.pop(place)
    elif kind < 0.2 and isinstance(value, dict):
        value[random.choice(("", "..", "\x00", "x" * 300, "a.b", f"{place}x"))] = value.pop(place)
    elif kind < 0.2:
        value.insert(place, value[place])
    else:
        value[place] = _replaced(value[place], random)
    return value
