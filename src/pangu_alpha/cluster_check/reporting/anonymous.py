"""Replaces host names, addresses and folders in a report, always by the same word for the same name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pangu_alpha.cluster.host_names import is_address

# Addresses as they stand in logs: four numbers, groups of hexadecimal digits with at least two colons, and
# the hardware addresses of network cards.
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]\d|\w)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:%\w+)?(?![\w:])")
_HARDWARE = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:])")
_HOME = re.compile(r"/(?:home|Users)/[^/\s'\":,;)]+|(?<![\w/])/root(?=/|\b)")
_KEPT = {"127.0.0.1", "0.0.0.0", "::1", "::"}  # name no machine


class Anonymous:
    """A replacement of names that is the same in all texts of a report.

    Args:
        hosts: Names of hosts, which cannot be recognised by their form. The longest are replaced first, so
            that no part of a name is left.
        folders: Paths that are replaced wherever a text has them, and what stands for each.
    """

    def __init__(self, hosts: Iterable[str], folders: Mapping[str, str] | None = None) -> None:
        self._folders = sorted((folders or {}).items(), key=lambda each: -len(each[0]))
        names = {part for host in hosts for part in (host, host.partition(".")[0]) if len(part) > 1}
        names = {name for name in names if name != "localhost" and not is_address(name)}
        self._hosts = {name: f"host{number}" for number, name in enumerate(sorted(names), 1)}
        ordered = sorted(names, key=len, reverse=True)
        self._pattern = re.compile(
            rf"(?<![\w-])(?:{'|'.join(map(re.escape, ordered))})(?:\.[\w-]+)*(?![\w-])" if names else r"(?!)"
        )
        self._addresses: dict[str, str] = {}

    def text(self, text: str) -> str:
        """Returns a text in which names, addresses and folders are replaced."""
        for folder, word in self._folders:
            text = text.replace(folder, word)
        text = self._pattern.sub(self._host, text)
        text = _HARDWARE.sub(self._address, text)
        text = _IPV4.sub(self._address, text)
        text = _IPV6.sub(self._address, text)
        return _HOME.sub("/home/user", text)

    def value(self, value: Any) -> Any:
        """Returns plain values in which every text is replaced, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(each) for key, each in value.items()}
        return [self.value(each) for each in value] if isinstance(value, list | tuple) else value

    def _host(self, found: re.Match[str]) -> str:
        name = found[0]
        while name not in self._hosts:  # a longer form of a known name, such as one with its domain
            name = name.rpartition(".")[0]
        return self._hosts[name]

    def _address(self, found: re.Match[str]) -> str:
        text = found[0]
        if text in _KEPT or not (_HARDWARE.fullmatch(text) or is_address(text.partition("%")[0])):
            return text
        return self._addresses.setdefault(text, f"address{len(self._addresses) + 1}")
