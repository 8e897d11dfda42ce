from __future__ import annotations

import re

import pytest
from sentencepiece import sentencepiece_model_pb2 as proto

from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.text.vocabulary import SkippedCharacters, _sentences, train_vocabulary

LINES = [
    "话说天下大势，分久必合，合久必分。",
    "周末七国分争，并入于秦。",
    "及秦灭之后，楚、汉分争，又并入于汉。",
    "汉朝自高祖斩白蛇而起义，一统天下。",
]


def test_special_pieces_have_the_released_order(small):
    names = ["<unk>", "<s>", "</s>", "\u2583", "\u2582", "<sep>", "<pad>", "<mask>", "<eod>", "<eot>"]
    assert [small.piece_of(number) for number in range(10)] == names


def test_size_and_normalisation(small):
    assert small.vocab_size == 150
    assert small.encode("天下，３") == small.encode("天下,3")
    assert small.piece_of(small.encode("天下")[0]).startswith("\u2581")


def test_every_character_of_the_corpus_is_covered(tmp_path):
    tokenizer = train_vocabulary(LINES, tmp_path / "v.model", 54)
    for line in LINES:
        assert tokenizer.unk_id not in tokenizer.encode(line)


def test_same_texts_give_the_same_file(tmp_path):
    first = train_vocabulary(LINES, tmp_path / "a.model", 54)
    second = train_vocabulary(iter(LINES), tmp_path / "deep" / "b.model", 54)
    assert first.digest == second.digest


def test_very_long_lines_are_learnt_from(tmp_path):
    tokenizer = train_vocabulary(["天下大势分久必合" * 4000 + "魑魅魍魉", *LINES], tmp_path / "v.model", 60)
    assert tokenizer.unk_id not in tokenizer.encode("魑魅魍魉")


def test_too_large_names_the_largest_size(tmp_path):
    with pytest.raises(ValueError, match="too many") as caught:
        train_vocabulary(LINES, tmp_path / "v.model", 10_000)
    largest = int(re.search(r"at most (\d+)", str(caught.value))[1])
    assert train_vocabulary(LINES, tmp_path / "v.model", largest).vocab_size == largest


def test_too_small_names_what_is_needed_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"too few .* need \d+"):
        train_vocabulary(LINES, tmp_path / "v.model", 20)
    assert list(tmp_path.iterdir()) == []


def test_empty_corpus_and_bad_coverage(tmp_path):
    with pytest.raises(ValueError, match="no text"):
        train_vocabulary(["", " \n"], tmp_path / "v.model", 100)
    with pytest.raises(ValueError, match="character_coverage = 2"):
        train_vocabulary(LINES, tmp_path / "v.model", 100, character_coverage=2)


def test_lines_with_the_character_that_the_trainer_keeps_for_itself_are_learnt_from(tmp_path):
    marked = [f"▅{line}▅" for line in LINES]
    skipped = SkippedCharacters()
    tokenizer = train_vocabulary(marked, tmp_path / "v.model", 54, skipped=skipped)
    assert skipped.count == 8
    for line in LINES:  # the trainer would drop all four, without a word
        assert tokenizer.unk_id not in tokenizer.encode(line)
    assert tokenizer.digest == train_vocabulary(LINES, tmp_path / "w.model", 54).digest


@pytest.mark.parametrize(
    "changes", [{"vocab_size": 0}, {"vocab_size": 2**40}, {"threads": 0}, {"threads": 10**5}]
)
def test_numbers_that_the_trainer_cannot_take(tmp_path, changes):
    options = {"vocab_size": 54, "threads": 1} | changes
    with pytest.raises(ValueError, match=rf"{next(iter(changes))} = \d+: it must be from 1 to"):
        train_vocabulary(LINES, tmp_path / "v.model", options["vocab_size"], threads=options["threads"])


def test_a_vocabulary_whose_space_is_a_control_piece_says_so(small, tmp_path):
    assert small.lost_pieces == ()
    model = proto.ModelProto()
    model.ParseFromString(small.vocab_file.read_bytes())
    for piece in model.pieces:
        if piece.piece == "\u2582":
            piece.type = proto.ModelProto.SentencePiece.CONTROL
    (tmp_path / "v.model").write_bytes(model.SerializeToString())
    assert PanguTokenizer(tmp_path / "v.model").lost_pieces == ("space",)


def test_a_pointer_of_git_lfs_is_no_vocabulary(tmp_path):
    path = tmp_path / "vocab.model"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 879697\n")
    with pytest.raises(ValueError, match="vocab.model: a git-LFS pointer of a file of 879,697 bytes"):
        PanguTokenizer(path)


def test_a_place_that_cannot_be_written_is_found_before_the_training(tmp_path):
    def texts():
        raise AssertionError("the corpus is not read")
        yield ""

    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        train_vocabulary(texts(), tmp_path / "file" / "v.model", 54)


def test_a_word_without_an_end_reaches_the_trainer_in_parts():
    """As one word, a megabyte without a space takes the trainer minutes."""
    text = "1e999" * 1000
    words = " ".join(_sentences([text], SkippedCharacters())).split(" ")
    assert "".join(words) == text and max(map(len, words)) == 32
