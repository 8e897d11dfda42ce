"""Restores Chinese punctuation in generated text, where the vocabulary has only ASCII marks.

The tokenizer folds ，：？！；（） into ,:?!;() and … into ... before training, so a network cannot tell them
apart. The neighbouring characters can. Knows characters only: no ids, no network.
"""

from __future__ import annotations

import re

_WIDE = str.maketrans(",:?!;()", "，：？！；（）")
_MARKS = frozenset(",:?!;")
_OPEN, _CLOSED = "(（", ")）"
_ELLIPSES = (3, 6)  # dots that the tokenizer makes of … and of ……; the double one is usual in Chinese
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IS_HAN = re.compile(f"[{_HAN}]")
_BEGINS_CHINESE = re.compile(f"[{_HAN}《〈「『【]")
_IS_CHINESE = re.compile(f"[{_HAN}\u3001-\u301f\u2026\uff01-\uff0f\uff1a-\uff1f]")  # also 。、《》【】，：...
_QUOTES = frozenset("“”‘’—·")  # used in both languages, so the character before them decides
_MOST_QUOTES = 2  # quotes to look past for the next character; more would delay a mark for long
_ENDS_ADDRESS = frozenset(",;!")


def chinese_punctuation(text: str, before: str = "") -> str:
    """Returns a text with Chinese punctuation between Chinese characters; see `ChinesePunctuation`.

    Args:
        text: Text as the tokenizer decodes it.
        before: Text in front of it, such as a prompt. It counts as a neighbour, but is not changed.
    """
    writer = ChinesePunctuation(before)
    return writer.feed(text) + writer.flush()


class ChinesePunctuation:
    """Rewrites the punctuation of a text that arrives in pieces; where the pieces are cut changes nothing.

    - `, : ? ! ;` become full-width after a Han character or Chinese punctuation, and also before a Han
      character. Quotation marks and dashes in between do not count.
    - `(` follows the same rule. `)` follows the `(` that it closes, or the rule of the other marks without
      one.
    - Three or six dots after a Han character become one or two `…`.
    - Nothing changes in numbers (3,000 or 12:30), among Latin letters, in addresses (from :// or www. to
      their end), or between backticks; nor does `:` before a slash and `(` after `]`. A single `.` and
      straight quotation marks always stay, because the tokenizer keeps 。 and “”.

    Args:
        before: Text in front of the first piece, such as a prompt; a neighbour that is not changed.
    """

    def __init__(self, before: str = "") -> None:
        self._held = ""
        self._chinese = False  # whether the last character is Chinese, not counting quotation marks
        self._last = ""  # the last three characters, before their rewriting
        self._open: list[bool] = []  # for each ( that is still open: whether it is full-width
        self._address = False
        self._backticks = 0  # length of the run of backticks just read
        self._code = 0  # number of backticks that opened the current code; the run just read may close it
        for character in before:
            self._pass(character, character)

    def feed(self, text: str) -> str:
        """Takes the next piece.

        Returns:
            The text that is now certain, whatever follows, and has not been returned before.
        """
        self._held += text
        return self._write(final=False)

    def flush(self) -> str:
        """Returns the rest of the text; call it once, after the last piece."""
        return self._write(final=True)

    def _write(self, final: bool) -> str:
        written, place = [], 0
        while place < len(self._held):
            size, out = self._next(place, final)
            if not size:
                break
            taken = self._held[place : place + size]
            for character in taken:
                self._pass(character, character if out == taken else out)
            written.append(out)
            place += size
        self._held = self._held[place:]
        return "".join(written)

    def _next(self, place: int, final: bool) -> tuple[int, str]:
        """How many of the held characters are decided now, and what they become; 0 if more text is needed."""
        character = self._held[place]
        if character == ".":
            return self._dots(place, final)
        if character not in _MARKS and character not in "()":
            return 1, character
        if self._literal():
            return 1, character
        if character == ")" and self._open:
            return 1, "）" if self._open[-1] else character
        follower = self._follower(place + 1, final)
        if follower is None:
            return 0, ""
        return 1, character.translate(_WIDE) if self._is_chinese(character, follower) else character

    def _is_chinese(self, mark: str, follower: str) -> bool:
        before_han = bool(_BEGINS_CHINESE.match(follower))
        if self._address:
            return mark in _ENDS_ADDRESS and before_han and not self._chinese
        if (mark == ":" and follower in ("/", "\\")) or (mark == "(" and self._last[-1:] == "]"):
            return False
        return self._chinese or before_han

    def _dots(self, place: int, final: bool) -> tuple[int, str]:
        size = 1
        while size <= max(_ELLIPSES) and self._held[place + size : place + size + 1] == ".":
            size += 1
        usable = self._chinese and not self._literal() and not self._address and self._last[-1:] != "."
        if not usable:
            return size, "." * size
        if size <= max(_ELLIPSES) and place + size == len(self._held) and not final:
            return 0, ""
        return size, "…" * (size // 3) if size in _ELLIPSES else "." * size

    def _follower(self, place: int, final: bool) -> str | None:
        """The next character that counts: "" at the end of the text, None if it has not arrived yet."""
        end = place + _MOST_QUOTES
        while place < min(end, len(self._held)) and self._held[place] in _QUOTES:
            place += 1
        if place < len(self._held):
            return self._held[place]
        return "" if final else None

    def _literal(self) -> bool:
        """Whether the next character stands between backticks."""
        return self._code_after_run() > 0

    def _code_after_run(self) -> int:
        """How many backticks opened the code that the next character is in; 0 outside code.

        The same number of backticks closes it; three or more open and close a block.
        """
        run = min(self._backticks, 3)
        if run == 0 or self._code == 0:
            return run or self._code
        return 0 if run == self._code else self._code

    def _pass(self, character: str, out: str) -> None:
        """Updates the state for a character that was written as `out`."""
        self._count_backticks(character)
        if character in _OPEN:
            self._open.append(out == "（")
        elif character in _CLOSED and self._open:
            self._open.pop()
        self._follow_address(character, out)
        if out not in _QUOTES:
            self._chinese = bool(_IS_CHINESE.match(out))
        self._last = (self._last + character)[-3:]

    def _count_backticks(self, character: str) -> None:
        if character == "`":
            self._backticks += 1
            return
        self._code, self._backticks = self._code_after_run(), 0
        if character == "\n" and self._code < 3:  # inline code ends with its line
            self._code = 0

    def _follow_address(self, character: str, out: str) -> None:
        """Tracks addresses; one ends at a space, at a mark that became Chinese, or before Chinese text."""
        before = self._last[-1:]
        if not self._address:
            recent = self._last + character
            self._address = recent.endswith("://") or recent.lower().endswith("www.")
        elif character.isspace() or out != character:
            self._address = False
        elif not character.isascii():  # https://host/三国 goes on, https://host三国 does not
            self._address = bool(_IS_HAN.match(character)) and not (before.isascii() and before.isalnum())
