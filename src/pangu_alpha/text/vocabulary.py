"""Trains a vocabulary on the user's own text, in a form that `PanguTokenizer` reads like the released one.

It is a SentencePiece unigram model over jieba's words, with the release's normalisation and its ten special
pieces at ids 0 to 9.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from pangu_alpha.files.writing import replacing_file
from pangu_alpha.text.segment import cut
from pangu_alpha.text.tokenizer import NEWLINE, SPACE, UNKNOWN, PanguTokenizer

# The order of the released vocabulary, from id 3 on; <unk>, <s> and </s> have 0 to 2.
_USER_DEFINED = (NEWLINE, SPACE, "<sep>", "<pad>", "<mask>", "<eod>", "<eot>")
_WORDS_PER_SENTENCE = 2000  # longer lines are split, because the trainer holds each sentence in memory
_LONGEST_WORD = 32  # characters; pieces have at most 16, and the time grows with the square of this
_LONGEST_SENTENCE = 1 << 24  # bytes; the trainer silently drops longer ones
_MOST_PIECES = 1 << 24  # far more than a corpus can fill; the trainer's numbers have 32 bits
_MOST_THREADS = 1024  # the trainer's own limit
# SentencePiece writes U+2585 for unknown text, and the trainer silently drops every line that contains it.
UNLEARNABLE = "\u2585"


@dataclass
class SkippedCharacters:
    """Counts how often UNLEARNABLE occurred in the texts of a training."""

    count: int = 0


def train_vocabulary(
    texts: Iterable[str],
    vocab_file: str | Path,
    vocab_size: int,
    *,
    character_coverage: float = 1.0,
    threads: int = 1,
    skipped: SkippedCharacters | None = None,
) -> PanguTokenizer:
    """Trains a vocabulary and writes the whole file or none of it.

    The same texts, size and number of threads give the same file.

    Args:
        texts: Documents; they are read once, and the trainer holds them in memory.
        vocab_file: The SentencePiece model to write.
        vocab_size: Number of pieces, including the ten special ones.
        character_coverage: Share of the text's characters that get pieces, from 0.9 to 1.0 (every character).
        skipped: Updated with the number of characters that cannot be learned. The rest of their line is used.

    Returns:
        A tokenizer that uses the new file.

    Raises:
        ValueError: The corpus is empty, or vocab_size does not suit it; the message gives a size that does.
    """
    if not 0.9 <= character_coverage <= 1.0:
        raise ValueError(f"character_coverage = {character_coverage}: it must lie in [0.9, 1.0]")
    for name, value, most in (("vocab_size", vocab_size, _MOST_PIECES), ("threads", threads, _MOST_THREADS)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} = {value}: it must be from 1 to {most}")
    Path(vocab_file).parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(vocab_file, binary=True) as file:  # opened first: a bad path fails at once
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_sentences(texts, skipped or SkippedCharacters()),
                model_writer=file,
                model_type="unigram",
                vocab_size=vocab_size,
                character_coverage=character_coverage,
                normalization_rule_name="nmt_nfkc",
                add_dummy_prefix=True,
                remove_extra_whitespaces=True,
                unk_id=0,
                unk_piece=UNKNOWN,
                bos_id=1,
                eos_id=2,
                pad_id=-1,
                user_defined_symbols=list(_USER_DEFINED),
                max_sentence_length=_LONGEST_SENTENCE,
                num_threads=threads,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(_explain(str(error), vocab_size)) from error
    return PanguTokenizer(vocab_file)


def _sentences(texts: Iterable[str], skipped: SkippedCharacters) -> Iterator[str]:
    """Yields lines as words joined by spaces, without the text's own spaces, which have a piece already."""
    for text in texts:
        if UNLEARNABLE in text:
            skipped.count += text.count(UNLEARNABLE)
            text = text.replace(UNLEARNABLE, " ")
        for line in text.splitlines():
            words = [part for word in cut(line) if not word.isspace() for part in _parts(word)]
            for start in range(0, len(words), _WORDS_PER_SENTENCE):
                yield " ".join(words[start : start + _WORDS_PER_SENTENCE])


def _parts(word: str) -> Iterator[str]:
    """Splits a word into parts that train quickly; a megabyte without a space would take minutes."""
    return (word[start : start + _LONGEST_WORD] for start in range(0, len(word), _LONGEST_WORD))


def _explain(message: str, vocab_size: int) -> str:
    """Puts an error message of SentencePiece 0.2 in the user's terms; unknown ones are left unchanged."""
    if found := re.search(r"value <= (\d+)", message):
        return f"{vocab_size} pieces are too many for this corpus: take at most {found[1]}, or more text"
    if found := re.search(r"required_chars. \d+ vs (\d+)", message):
        return (
            f"{vocab_size} pieces are too few for this corpus: its characters and the special pieces need "
            f"{found[1]}; take so many (--size), or let rare characters go without (--coverage)"
        )
    if "sentences_.empty()" in message:
        return "the corpus holds no text to train a vocabulary on"
    return f"SentencePiece could not train a vocabulary of {vocab_size}: {message}"
