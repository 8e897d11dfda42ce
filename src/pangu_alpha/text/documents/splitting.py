"""Splits a stream of bytes into documents of bounded size: the whole stream, its lines or its paragraphs.

A splitter yields the documents that are surely complete, and None for each that was too large. What follows
the last of them is its `tail`, which may be incomplete if an archive ended early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator


class Splitter:
    """Splits one stream.

    Args:
        most: Size in bytes of the largest document allowed.
        too_large: Called as soon as a document is known to be larger; it may raise. The function that it
            returns is called with the document's size once that is known.
    """

    def __init__(
        self, chunks: Iterator[bytes], most: int, too_large: Callable[[], Callable[[int], None]]
    ) -> None:
        self._chunks = chunks
        self._most = most
        self._too_large = too_large
        self._finish: Callable[[int], None] | None = None
        self._size = 0
        self.tail: bytes | None = b""

    def split(self, way: str) -> Iterator[bytes | None]:
        """Yields the documents; `way` is "file", "blank_line" or "line"."""
        return {"file": self._whole, "blank_line": self._paragraphs, "line": self._lines}[way]()

    def _whole(self) -> Iterator[bytes | None]:
        parts: list[bytes] = []
        for chunk in self._chunks:
            self._add(parts, chunk)
        self.tail = self._taken(parts)
        yield from ()

    def _lines(self) -> Iterator[bytes | None]:
        begun: list[bytes] = []
        for chunk in self._chunks:
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                self._add(begun, end)
                yield self._taken(begun)
            self._add(begun, rest)
        self.tail = self._taken(begun)

    def _paragraphs(self) -> Iterator[bytes | None]:
        paragraph: list[bytes] = []
        begun: list[bytes] = []  # parts of the current line
        for chunk in self._chunks:
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                begun.append(end)
                line = _joined(begun)
                if line.strip():
                    self._add(paragraph, line, 1)
                elif paragraph or self._size:
                    yield self._taken(paragraph, b"\n")
            begun.append(rest)
            if sum(map(len, begun)) + self._size > self._most:  # drops a huge line before its end is reached
                self._add(paragraph, _joined(begun))
        if begun:
            self._add(paragraph, _joined(begun), 1)
        self.tail = self._taken(paragraph, b"\n")

    def _add(self, parts: list[bytes], part: bytes, end: int = 0) -> None:
        self._size += len(part) + end
        if self._size - end <= self._most:
            parts.append(part)
        else:
            parts.clear()
            self._finish = self._finish or self._too_large()

    def _taken(self, parts: list[bytes], between: bytes = b"") -> bytes | None:
        size, self._size = self._size, 0
        if self._finish is not None:
            finish, self._finish = self._finish, None
            finish(size)
            return None
        return _joined(parts, between)


def _joined(parts: list[bytes], between: bytes = b"") -> bytes:
    joined = parts[0] if len(parts) == 1 else between.join(parts)
    parts.clear()
    return joined
