"""Makes an item's texts, with its solved examples, so that they fit into the context.

Whole examples are dropped, the last drawn first. Only then the item's document loses text at its outer side,
up to the beginning of a sentence. Both are counted, and nothing else is ever cut.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pangu_alpha.evaluation.few_shot import ShotChooser
from pangu_alpha.evaluation.running.candidates import choose_candidates
from pangu_alpha.evaluation.running.network import Reader
from pangu_alpha.evaluation.running.scoring_rules import added_ids
from pangu_alpha.evaluation.tasks.item import Item
from pangu_alpha.evaluation.tasks.task import EvaluationTask, Template

_ENDS = re.compile("[。！？!?；;\n]")


@dataclass(frozen=True)
class Prompt:
    """An item as text.

    Args:
        item: The item, with the candidates that are compared, in the order in which they are.
        texts: For each candidate the text before what is scored, and what is scored; for a generated answer
            one pair, whose second text is empty.
        shots: Ids of the examples shown.
        dropped: Number of examples that did not fit.
        cut: Number of characters that the document lost.
    """

    item: Item
    texts: tuple[tuple[str, str], ...]
    shots: tuple[str, ...]
    dropped: int
    cut: int


class TooLongError(ValueError):
    """An item does not fit into the context, even without examples and without its document."""


@dataclass(frozen=True)
class PromptMaker:
    """Makes the prompts of one task.

    Args:
        scoring: Rule that says what is added to a text; see `scoring_rules`.
        reader: How the network reads.
        chooser: Chooses the examples.
    """

    task: EvaluationTask
    template: Template
    scoring: str
    reader: Reader
    chooser: ShotChooser
    seed: int

    @property
    def room(self) -> int:
        """Most ids that a text may have."""
        if self.task.family == "generation":
            return self.reader.context - self.template.max_new_tokens
        return self.reader.context - added_ids(self.scoring)

    def make(self, item: Item) -> Prompt:
        """Makes an item's prompt.

        Raises:
            TooLongError: It does not fit.
        """
        item = choose_candidates(item, self.task, self.seed)
        drawn = self.chooser.choose(item)
        blocks = [self.template.solved_item(example) for example in drawn]
        kept = next((n for n in range(len(blocks), -1, -1) if self._fits(item, blocks[:n])), None)
        if kept is None:
            return self._shortened(item, len(drawn))
        ids = tuple(example.id for example in drawn[:kept])
        return Prompt(item, self._texts(item, blocks[:kept]), ids, len(drawn) - kept, 0)

    def _texts(self, item: Item, blocks: Sequence[str]) -> tuple[tuple[str, str], ...]:
        before = "".join(block + self.template.separator for block in blocks)
        several = [{**item.fields, **choice} for choice in item.choices] or [dict(item.fields)]
        return tuple((before + self.template.head(values), self.template.tail(values)) for values in several)

    def _fits(self, item: Item, blocks: Sequence[str]) -> bool:
        """Whether the texts of all candidates fit."""
        texts = dict.fromkeys(head + tail for head, tail in self._texts(item, blocks))
        longest_first = sorted(texts, key=len, reverse=True)
        return self._text_fits(longest_first[0]) and all(map(self._text_fits, longest_first[1:]))

    def _longest_fits(self, item: Item) -> bool:
        """Whether the text fits that has the most characters; another one may have more ids."""
        return self._text_fits(max((head + tail for head, tail in self._texts(item, ())), key=len))

    def _text_fits(self, text: str) -> bool:
        return most_ids(text) <= self.room or len(self.reader.tokenizer.encode(text)) <= self.room

    def _shortened(self, item: Item, dropped: int) -> Prompt:
        """The prompt without examples, with the longest part of the document that fits."""
        fields = (*self.template.cut_left, *self.template.cut_right)
        longest = max((len(item.fields.get(name, "")) for name in fields), default=0)
        low, high = 1, longest  # a window of `low` characters may fit, one of `high` does not
        if longest == 0 or not self._fits(self._window(item, 1), ()):
            raise TooLongError(
                f"{item.where}: longer than the context of {self.reader.context} tokens even without "
                f"{'its ' + ' and '.join(fields) if fields else 'examples'}; leave it out of the file, or "
                "take a model with a larger context"
            )
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._longest_fits(self._window(item, middle)) else (low, middle)
        while not (self._fits(self._window(item, low), ()) and self._fits(self._window(item, low, True), ())):
            low -= 1
        short = self._window(item, low, whole_sentences=True)
        cut = sum(len(item.fields[name]) - len(short.fields[name]) for name in fields)
        return Prompt(short, self._texts(short, ()), (), dropped, cut)

    def _window(self, item: Item, size: int, whole_sentences: bool = False) -> Item:
        """The item with at most `size` characters of each of its document's fields."""
        fields = dict(item.fields)
        for name in self.template.cut_left:
            fields[name] = _end_of(fields[name], size, whole_sentences)
        for name in self.template.cut_right:
            fields[name] = _end_of(fields[name][::-1], size, False)[::-1]
            if whole_sentences and len(fields[name]) < len(item.fields[name]):
                fields[name] = _whole_at_end(fields[name])
        return replace(item, fields=fields)


def _end_of(text: str, size: int, whole_sentences: bool) -> str:
    if len(text) <= size:
        return text
    kept = text[len(text) - size :]
    found = _ENDS.search(kept) if whole_sentences else None
    if found is None or _ENDS.search(text[len(text) - size - 1]):
        return kept
    return kept[found.end() :] or kept


def _whole_at_end(text: str) -> str:
    last = max((found.end() for found in _ENDS.finditer(text)), default=0)
    return text[:last] or text


def most_ids(text: str) -> int:
    """A bound of a text's ids with any vocabulary, which needs no encoding.

    An id stands for at least a character, or a byte of it; each word may have one more for its beginning, and
    has at least a character. A vocabulary may apply NFKC, which makes up to 18 characters of one.
    """
    forms = (text, unicodedata.normalize("NFKC", text))
    return max(len(form) + len(form.encode("utf-8", "surrogatepass")) for form in forms)
