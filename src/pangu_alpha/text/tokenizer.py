"""The PanGu-alpha tokenizer: jieba's words, then SentencePiece, with the same ids as the 2021 release.

Text never yields a control id: a literal "<eod>" is plain text. The tokenizer adds no begin or end token and
knows nothing of prompts.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from pangu_alpha.files.reading import read_bytes
from pangu_alpha.text.segment import absent_character, cut_joined

SPACE = "\u2582"  # the pieces that stand for a space and for a line feed
NEWLINE = "\u2583"
UNKNOWN = "<unk>"
CONTROL_NAMES = ("<s>", "</s>", "<sep>", "<pad>", "<mask>", "<eod>", "<eot>")

# Longer texts are encoded in parts, to bound memory; batches are encoded in loads of this size too.
_MAX_CHARACTERS = 1 << 20
# A part may end after these without changing an id, because jieba and SentencePiece both end a word there.
_BREAKS = ("\n", "。", "，", " ")


class PanguTokenizer:
    """Converts text to ids and back with the released PanGu vocabulary or one made by `train_vocabulary`.

    Args:
        vocab_file: A SentencePiece model that contains the control names and the pieces for space (U+2582)
            and line feed (U+2583).

    Raises:
        ValueError: The file is not a SentencePiece model, or not one for PanGu-alpha.
        FileNotFoundError: There is no such file.
    """

    def __init__(self, vocab_file: str | Path) -> None:
        self.vocab_file = Path(vocab_file)
        content = _read_vocabulary(self.vocab_file)
        self.digest = hashlib.sha256(content).hexdigest()
        self._model = _load_model(self.vocab_file, content)
        self._unknown = self._model.unk_id()
        self._size = self._model.get_piece_size()
        missing = [name for name in (*CONTROL_NAMES, SPACE, NEWLINE) if not self._has(name)]
        if missing:
            raise ValueError(f"{vocab_file}: not a PanGu-alpha vocabulary, it lacks {', '.join(missing)}")
        self.control_ids = frozenset(self.id_of(name) for name in CONTROL_NAMES)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, equal to those of the official tokenizer.

        Some of the text is lost, as in the release: it is NFKC-normalised, tabs and carriage returns vanish,
        and characters outside the vocabulary become <unk>. Lone surrogates are read as U+FFFD.

        Returns:
            Ids, none of them in `control_ids`; [] for "".
        """
        ids: list[int] = []
        for part in self.encode_parts(text):
            ids += part
        return ids

    def encode_parts(self, text: str) -> Iterator[list[int]]:
        """Yields `encode(text)` in parts, for a text whose ids would be too many to hold as one list."""
        for part in _parts(text):
            yield self._model.encode(_spaced(part))

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Equals `[encode(text) for text in texts]`, but several times faster for many short texts."""
        rows: list[list[int]] = []
        for load in _loads(texts):
            if len(load) == 1:
                rows.append(self.encode(load[0]))
                continue
            border = absent_character("".join(load))
            spaced = _spaced(border.join(load)).split(border)
            rows += self._model.encode(spaced, num_threads=1)
        return rows

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; <unk> becomes U+2047, and other control ids become their names.

        Raises:
            ValueError: An id lies outside [0, vocab_size).
        """
        return _unspaced(self._model.decode([self._checked(number) for number in ids]))

    def id_of(self, name: str) -> int:
        """Returns the id of a piece by its exact name, such as "<eod>".

        Raises:
            ValueError: There is no such piece; the message suggests the most similar control name.
        """
        if not self._has(name):
            nearest = difflib.get_close_matches(name, (UNKNOWN, *CONTROL_NAMES), n=1, cutoff=0.4)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"controls: {', '.join(CONTROL_NAMES)}"
            raise ValueError(f"{self.vocab_file}: the vocabulary has no piece {name!r}; {hint}")
        return self._model.piece_to_id(name)

    def piece_of(self, number: int) -> str:
        """Returns the piece of an id in SentencePiece's notation, where U+2581 begins a word."""
        return self._model.id_to_piece(self._checked(number))

    @functools.cached_property
    def additive(self) -> bool:
        """Whether the text of ids is the texts of the single ids, joined.

        That holds for the released vocabulary. Pieces of single bytes break it, and so would any rule for the
        beginning or the end of a text.
        """
        numbers = range(self._size)
        if any(self._model.is_byte(number) for number in numbers):
            return False
        texts = [_unspaced(text) for text in self._model.decode([[number] for number in numbers])]
        both = (numbers, texts), (numbers[::-1], texts[::-1])
        return all(self.decode(ids) == "".join(parts) for ids, parts in both)

    @property
    def lost_pieces(self) -> tuple[str, ...]:
        """Those of "space" and "line feed" whose piece in the vocabulary is never yielded by text.

        This happens where the piece is of SentencePiece's kind "control": all spaces then become <unk>.
        """
        pieces = (("space", " ", SPACE), ("line feed", "\n", NEWLINE))
        return tuple(word for word, text, name in pieces if self.id_of(name) not in self.encode(text))

    @property
    def vocab_size(self) -> int:
        """Number of pieces, including controls."""
        return self._size

    @property
    def unk_id(self) -> int:
        """Id of <unk>, the only special id that text can yield."""
        return self._unknown

    @property
    def sep_id(self) -> int:
        """Id of <sep>."""
        return self.id_of("<sep>")

    @property
    def pad_id(self) -> int:
        """Id of <pad>; positions with it do not count in the loss."""
        return self.id_of("<pad>")

    @property
    def eod_id(self) -> int:
        """Id of <eod>, the vocabulary's own end of document; a released model's card may name another."""
        return self.id_of("<eod>")

    @property
    def eot_id(self) -> int:
        """Id of <eot>, which ended documents in training and generation of the 2021 release."""
        return self.id_of("<eot>")

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"PanguTokenizer({str(self.vocab_file)!r}, {self.vocab_size} pieces)"

    def __reduce__(self) -> tuple[type[PanguTokenizer], tuple[Path]]:
        return PanguTokenizer, (self.vocab_file,)

    def _checked(self, number: int) -> int:
        if not 0 <= number < self._size:
            raise ValueError(
                f"token id {number} is outside the vocabulary of {self._size} ({self.vocab_file})"
            )
        return int(number)

    def _has(self, name: str) -> bool:
        return self._model.piece_to_id(name) != self._unknown or name == UNKNOWN


def _read_vocabulary(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such vocabulary file; `python -m pangu_alpha.cli.fetch vocab` gets the released one"
        )
    return read_bytes(path)


def _load_model(path: Path, content: bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=content) if content else None
    except RuntimeError as error:
        raise ValueError(f"{path}: not a whole SentencePiece model ({len(content)} bytes)") from error
    if model is None:
        raise ValueError(f"{path}: the vocabulary file is empty")
    return model


def _spaced(text: str) -> str:
    """The input of SentencePiece: words joined by spaces, the text's own spaces and line feeds renamed."""
    # Renaming before the cut gives the same words as after it: jieba takes all four characters as single
    # words.
    return cut_joined(_printable(text).replace(" ", SPACE).replace("\n", NEWLINE), " ")


def _unspaced(text: str) -> str:
    """What a text of SentencePiece's stands for: its spaces are borders of words only."""
    return text.replace(" ", "").replace(SPACE, " ").replace(NEWLINE, "\n")


def _printable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _parts(text: str) -> Iterator[str]:
    """Splits a huge text at a line feed, else at punctuation, else anywhere."""
    start = 0
    while len(text) - start > _MAX_CHARACTERS:
        limit = start + _MAX_CHARACTERS
        breaks = (text.rfind(character, start, limit) for character in _BREAKS)
        end = next((place + 1 for place in breaks if place >= 0), limit)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _loads(texts: Iterable[str]) -> Iterator[list[str]]:
    """Groups texts into lists of about `_MAX_CHARACTERS`; a longer text gets a list of its own."""
    load: list[str] = []
    size = 0
    for text in texts:
        if load and size + len(text) > _MAX_CHARACTERS:
            yield load
            load, size = [], 0
        load.append(text)
        size += len(text)
    if load:
        yield load
