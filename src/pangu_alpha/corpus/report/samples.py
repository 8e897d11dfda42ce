"""Pieces of documents for people to read: cut short, personal data masked, escaped, what matched marked."""

from __future__ import annotations

import html
import re

from pangu_alpha.corpus.report.finished import FinishedRun
from pangu_alpha.corpus.rules import Context, find_personal

LENGTH = 300  # characters of a document that are shown
_BEFORE = 60  # of them before the first match
_HIDDEN = "■"
_BEGIN, _END = "\ue000", "\ue001"  # of a mark, private characters while the text is escaped


def without_personal_data(text: str) -> str:
    """Puts the mark of its kind in the place of every piece of personal data, whatever the profile does."""
    pieces, place = [], 0
    for found in find_personal(text):
        pieces += [text[place : found.start], found.kind.mark]
        place = found.stop
    return "".join([*pieces, text[place:]])


def shown_piece(text: str, rule: str, context: Context | None) -> str:
    """A piece of a document as HTML.

    Words of the user's sensitive list are hidden, whatever the rule; without the lists, so is the text.
    """
    if context is None:
        return "<i>not shown: the word lists are not those of the run</i>"
    clean = re.sub(f"[{_BEGIN}{_END}]", "", without_personal_data(text))
    clean = _hidden(clean, context)
    spans = _matches(clean, rule, context)
    start = max(spans[0][0] - _BEFORE, 0) if spans and spans[0][1] > LENGTH else 0
    stop = start + LENGTH
    marked = _marked(clean, [(a, min(b, stop)) for a, b in spans if start <= a < stop], start, stop)
    words = html.escape(marked).replace(_BEGIN, "<mark>").replace(_END, "</mark>").replace("\n", "<br>")
    return f"{'… ' if start else ''}{words}{' …' if stop < len(clean) else ''}"


def _marked(text: str, spans: list[tuple[int, int]], start: int, stop: int) -> str:
    pieces, place = [], start
    for first, last in spans:
        pieces += [text[place:first], _BEGIN, text[first:last], _END]
        place = last
    return "".join([*pieces, text[place:stop]])


def _hidden(text: str, context: Context) -> str:
    for word in sorted(set(context.sensitive.found(text)), key=len, reverse=True):
        text = pattern_of(word).sub(lambda match: _HIDDEN * len(match.group()), text)
    # a word in a form that the expression above does not find hides the whole text
    return _HIDDEN * min(len(text), LENGTH) if context.sensitive.found(text) else text


def pattern_of(word: str) -> re.Pattern[str]:
    """Finds a folded word in a text, in any case and with full-width letters and digits."""
    forms = (
        f"[{re.escape(each)}{chr(ord(each) + 0xFEE0)}]" if "!" <= each <= "~" else re.escape(each)
        for each in word
    )
    return re.compile("".join(forms), re.IGNORECASE)


def _matches(text: str, rule: str, context: Context) -> list[tuple[int, int]]:
    """What made the rule count, as places in the text, in order, without overlaps."""
    if rule == "advertisement_words":
        words = sorted(set(context.advertisement.found(text)), key=len, reverse=True)
        found = [match.span() for word in words for match in pattern_of(word).finditer(text)]
    elif rule in ("duplicate_lines", "duplicate_line_characters"):
        found = _repeated_lines(text)
    elif rule in ("repeated_10grams", "repeated_13grams", "top_4gram"):
        found = _repeated_runs(text, int(re.findall(r"\d+", rule)[0]))
    else:
        found = []
    return _joined(sorted(found))


def _repeated_lines(text: str) -> list[tuple[int, int]]:
    seen, found, place = set(), [], 0
    for line in text.split("\n"):
        if line.strip() and line in seen:
            found.append((place, place + len(line)))
        seen.add(line)
        place += len(line) + 1
    return found


def _repeated_runs(text: str, n: int) -> list[tuple[int, int]]:
    seen: set[str] = set()
    found = []
    for place in range(len(text) - n + 1):
        run = text[place : place + n]
        if run in seen:
            found.append((place, place + n))
        seen.add(run)
    return found


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined


def texts_of(run: FinishedRun, ids: list[int]) -> dict[int, tuple[str, str, str]]:
    """Source, URL and normalised text of documents, by id."""
    return {
        row["id"]: (source, row["url"] or "", row["text"])
        for source, row in run.rows("normalise", "text", ids)
    }
