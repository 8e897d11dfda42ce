"""Training a vocabulary of one's own that `PanguTokenizer` reads like the released one.

SentencePiece unigram over jieba's words, with the release's normalisation and its ten special pieces at 0..9.
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

# Order of the released vocabulary: ids 3.. after <unk> <s> </s>.
_USER_DEFINED = (NEWLINE, SPACE, "<sep>", "<pad>", "<mask>", "<eod>", "<eot>")
_WORDS_PER_SENTENCE = 2000  # longer lines are cut: the trainer holds each sentence whole
_LONGEST_WORD = 32  # characters; pieces have at most 16, and the time grows with the square of this
_LONGEST_SENTENCE = 1 << 24  # bytes; the trainer drops longer ones without a word
_MOST_PIECES = 1 << 24  # far beyond what a corpus gives; the trainer's numbers have 32 bits
_MOST_THREADS = 1024  # the trainer's own bound
# SentencePiece writes U+2585 for what it does not know; the trainer drops every line with it, without a word.
UNLEARNABLE = "\u2585"


@dataclass
class SkippedCharacters:
    """What a training could not learn from.

    Args:
        count: Times that UNLEARNABLE stood in the texts.
    """

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
    """Train a vocabulary and write it, whole or not at all.

    The same texts, size and number of threads give the same file.

    Args:
        texts (Iterable[str]): documents; read once, held in memory by the trainer.
        vocab_file (str | Path): the SentencePiece model to write.
        vocab_size (int): number of pieces, the ten special ones included.
        character_coverage (float): share of the text's characters that get pieces; 1.0 is every character.
        threads (int): the trainer's threads.
        skipped (SkippedCharacters | None): counts what cannot be learnt; the rest of its line is.

    Returns:
        PanguTokenizer reading the new file.

    Raises:
        ValueError: the corpus is empty, or vocab_size does not fit it (the message says which sizes do).
    """
    if not 0.9 <= character_coverage <= 1.0:
        raise ValueError(f"character_coverage = {character_coverage}: it must lie in [0.9, 1.0]")
    for name, value, most in (("vocab_size", vocab_size, _MOST_PIECES), ("threads", threads, _MOST_THREADS)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} = {value}: it must be from 1 to {most}")
    Path(vocab_file).parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(vocab_file, binary=True) as file:  # opened before the training, which takes long
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
    """Lines as words joined by spaces; spaces and line feeds have pieces of their own, nothing to learn."""
    for text in texts:
        if UNLEARNABLE in text:
            skipped.count += text.count(UNLEARNABLE)
            text = text.replace(UNLEARNABLE, " ")
        for line in text.splitlines():
            words = [part for word in cut(line) if not word.isspace() for part in _parts(word)]
            for start in range(0, len(words), _WORDS_PER_SENTENCE):
                yield " ".join(words[start : start + _WORDS_PER_SENTENCE])


def _parts(word: str) -> Iterator[str]:
    """A word in parts that the trainer takes quickly; a megabyte without a space would take it minutes."""
    return (word[start : start + _LONGEST_WORD] for start in range(0, len(word), _LONGEST_WORD))


def _explain(message: str, vocab_size: int) -> str:
    """SentencePiece 0.2's complaint in the user's terms; an unknown one is passed on as it is."""
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
