"""API keys: a file of names and digests, compared in constant time. No key itself is stored or logged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.config.schema import nearest
from pangu_alpha.files.reading import ReadError, read_text, require_file
from pangu_alpha.files.shown import quoted, shown

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FORM = "NAME:SHA256[:SCENARIOS[:REQUESTS[:TOKENS]]]"


@dataclass(frozen=True)
class Key:
    """One line of a key file.

    Args:
        digest: SHA-256 of the key, in hexadecimal.
        scenarios: The only ones that it may use; empty allows everything.
        requests: Requests a minute; None is any number.
        tokens: Tokens a minute, of prompts and continuations; None is any number.
    """

    name: str
    digest: str
    scenarios: tuple[str, ...] = ()
    requests: int | None = None
    tokens: int | None = None


class Keys:
    """The keys of a server; without any, everybody may use it."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, secret: str) -> Key | None:
        """Returns the key that a client presents. The time does not depend on how much of it is right."""
        digest = hashlib.sha256(secret.encode("utf-8")).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def presented(authorization: str) -> str | None:
    """The key in an Authorization header: Bearer KEY, or Basic with the key as the password.

    Args:
        authorization: The header's value, in which each byte is a character (Latin-1). Keys are UTF-8.
    """
    kind, _, rest = authorization.strip().partition(" ")
    try:
        if kind.lower() == "bearer":
            return rest.strip().encode("latin-1").decode("utf-8") or None
        if kind.lower() == "basic":
            return base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")[2] or None
    except ValueError:  # no UTF-8, or no base64
        pass
    return None


def read_keys(path: str | Path, scenarios: Collection[str]) -> Keys:
    """Reads a key file.

    Args:
        scenarios: Names that exist.

    Raises:
        OSError: The file cannot be read.
        ReadError: Others can read the file; or it holds no key, or a bad line, all of which are listed.
    """
    path = require_file(path)
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise ReadError(
            f"key_file: {shown(path)} can be read or written by others (mode {mode:04o}); "
            f"run chmod 600 {shown(path)}"
        )
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1)]
    found: dict[str, Key] = {}
    problems: list[str] = []
    for number, line in lines:
        if not line or line.startswith("#"):
            continue
        try:
            key = _key(line, scenarios)
            if key.name in found:
                raise ReadError(f"the name {key.name} stands twice")
            if same := next((each.name for each in found.values() if each.digest == key.digest), None):
                raise ReadError(f"{key.name} has the same key as {same}; give each a key of its own")
            found[key.name] = key
        except ReadError as error:
            problems.append(f"key_file: {shown(path)}, line {number}: {error}")
    if not found and not problems:
        problems.append(f"key_file: {shown(path)}: holds no key; write one a line, {_FORM}")
    if problems:
        raise ReadError("\n".join(problems))
    return Keys(found.values())


def _key(line: str, scenarios: Collection[str]) -> Key:
    name, digest, bound, *limits = [*line.split(":"), "", ""][: max(3, line.count(":") + 1)]
    if line.count(":") < 1 or len(limits) > 2 or not _NAME.fullmatch(name):
        raise ReadError(f"not of the form {_FORM}")  # the line may hold a key, so it is not shown
    if not _DIGEST.fullmatch(digest):
        raise ReadError(f"{name}: the second part is no SHA-256; `printf %s KEY | sha256sum` gives it")
    names = tuple(bound.split(",")) if bound else ()  # nothing allows everything, so a stray comma must not
    for word in names:
        if word not in scenarios:
            raise ReadError(f"{name}: no scenario is called {quoted(word)}; {nearest(word, scenarios)}")
    numbers = [_limit(name, text) for text in limits]
    return Key(name, digest, names, *numbers)


def _limit(name: str, text: str) -> int | None:
    if not text:
        return None
    if not (re.fullmatch("[0-9]{1,12}", text) and int(text)):
        raise ReadError(f"{name}: a limit a minute must be a whole number of at least 1, not {quoted(text)}")
    return int(text)
