"""Expands server names as ssh, Slurm and MPI host lists write them into the ids of a rank table."""

from __future__ import annotations

import ipaddress
import itertools
import re

from pangu_alpha.files.shown import quoted

MOST_SERVERS = 16384  # of a list: more than any cluster has, and few enough to be checked in seconds
_PORT = re.compile(r"[^:]*:[0-9]+")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def server_ids(text: str) -> tuple[str, ...]:
    """Returns the servers that a word of a host list names.

    Args:
        text: A name or an address. A leading `user@` is dropped, `node[01-04,07]` stands for five servers,
            and commas separate several names.

    Raises:
        ValueError: The word has a port, or brackets that hold something else; the message says what to write.
    """
    names = [name for word in _words(text) for name in _expanded(word)]
    if len(names) > MOST_SERVERS:
        raise ValueError(f"{quoted(text)} names more than {MOST_SERVERS:,} servers")
    return tuple(names)


def _words(text: str) -> list[str]:
    """Splits at the commas outside of brackets, in time linear in the length of the text."""
    words: list[list[str]] = [[]]
    for part in re.findall(r"\[[^\[\]]*\]|,|[^\[,]+|\[", text):
        if part == ",":
            words.append([])
        else:
            words[-1].append(part)
    return ["".join(parts) for parts in words]


def _expanded(word: str) -> list[str]:
    name = word.rpartition("@")[2]
    address = re.fullmatch(r"\[([0-9a-fA-F:.]*:[0-9a-fA-F:.]*)\](:[0-9]+)?", name)
    if address and not address[2] and is_address(address[1]):
        return [address[1]]
    if address or (_PORT.fullmatch(name) and not is_address(name)):
        number = name.rpartition(":")[2]
        raise ValueError(
            f"{quoted(word)}: leave out :{number}; a rank table has no port, and a number of devices stands "
            "in the second column"
        )
    if not name or not name.isprintable() or re.search(r"\s", name):
        raise ValueError(f"{quoted(word)} is no name of a server; write its address or host name")
    parts = re.split(r"\[([^\[\]]*)\]", name)  # odd elements are the contents of brackets
    if any("[" in part or "]" in part for part in parts):
        raise ValueError(f"{quoted(word)}: a bracket is not closed; write node[01-04] or node[1,3]")
    choices = [_numbers(part, word) if place % 2 else [part] for place, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_SERVERS:
        raise ValueError(f"{quoted(word)} names more than {MOST_SERVERS:,} servers")
    return ["".join(each) for each in itertools.product(*choices)]


def _numbers(text: str, word: str) -> list[str]:
    """Expands "01-04,07", each number with as many digits as the first of its range."""
    numbers: list[str] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if found is None or last < first or last - first >= MOST_SERVERS:
            raise ValueError(f"{quoted(word)}: brackets hold numbers and ranges, as in node[01-04,07]")
        numbers += (str(number).zfill(len(found[1])) for number in range(first, last + 1))
    return numbers


def is_address(text: str) -> bool:
    """Whether a word is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
