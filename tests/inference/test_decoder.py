"""Feeding tokens one by one equals the full pass; nothing is compiled anew for a length or a prompt."""

from __future__ import annotations

import numpy as np
import pytest

VOCAB, CONTEXT, END = 97, 96, 9

# Documents end in mid-prompt, first, doubled, as the prompt's last id, and among the generated tokens.
PROMPTS = ([5, 6, END, 7, 8, 9 + 1, 11], [END, 3, END, END, 12, 13, 14, 15, 4, 21, END])
NEW = ([20, 21, END, 22, 23, END, END, 24], [40, END, 41, 42, 43, 44, 45, 46])


def decode(decoder, prompts, new):
    """Logits after each prompt and after every new token: [1 + new, B, V]."""
    rows = [decoder.prefill(prompts)]
    for tokens in zip(*new, strict=True):
        rows.append(decoder.step(tokens, [True] * len(tokens)))
    return np.stack(rows)


def test_decoding_equals_the_full_pass(each_model, full_logits):
    from pangu_alpha.inference.decoder import Decoder

    expected = full_logits(each_model, [a + b for a, b in zip(PROMPTS, NEW, strict=True)])
    decoder = Decoder(each_model, END, batch_size=2)
    try:
        found = decode(decoder, PROMPTS, NEW)
    finally:
        decoder.close()
    assert np.abs(expected).max() > 1  # large enough for the tolerance to mean something
    for row, prompt in enumerate(PROMPTS):
        for step in range(len(NEW[row]) + 1):
            np.testing.assert_allclose(found[step, row], expected[row, len(prompt) - 1 + step], atol=1e-4)
    assert len(decoder.forward.compile_cache) == 2


def test_every_length_every_position_and_one_graph_a_bucket(model, full_logits):
    from pangu_alpha.inference.decoder import Decoder

    rng = np.random.default_rng(0)
    ids = [int(token) for token in rng.integers(10, VOCAB, CONTEXT)]
    ids[30] = ids[70] = END
    expected = full_logits(model, [ids])[0]
    decoder = Decoder(model, END)
    try:
        for length in (1, 2, 31, 63, 64, 65, CONTEXT):
            np.testing.assert_allclose(decoder.prefill([ids[:length]])[0], expected[length - 1], atol=1e-4)
        assert len(decoder.forward.compile_cache) == 2  # buckets 64 and 96
        decoder.prefill([ids[:1]])
        for place in range(1, CONTEXT):
            assert decoder.has_room(0)
            np.testing.assert_allclose(decoder.step([ids[place]], [True])[0], expected[place], atol=1e-4)
        assert not decoder.has_room(0)
        assert len(decoder.forward.compile_cache) == 3
    finally:
        decoder.close()


def test_rows_that_pause_keep_their_place(model, full_logits):
    from pangu_alpha.inference.decoder import Decoder

    expected = full_logits(model, [[5, 6, 7, 8], [30, 31]])
    decoder = Decoder(model, END, batch_size=2, context=64)
    try:
        decoder.prefill([[5, 6], [30]])
        decoder.step([7, END], [True, False])
        logits = decoder.step([8, 31], [True, True])
    finally:
        decoder.close()
    np.testing.assert_allclose(logits[0], expected[0, 3], atol=1e-4)
    np.testing.assert_allclose(logits[1], expected[1, 1], atol=1e-4)


def test_buckets_double_up_to_the_context(build_model):
    from pangu_alpha.inference.decoder import Decoder

    decoder = Decoder(build_model(seq_length=200), END)
    assert [decoder.bucket(n) for n in (1, 64, 65, 128, 129, 200)] == [64, 64, 128, 128, 200, 200]
    decoder.close()


def test_misuse_is_refused_and_close_gives_the_model_back(model):
    from pangu_alpha.inference.decoder import Decoder

    names = [name for name, _ in model.parameters_and_names()]
    with pytest.raises(ValueError, match="context: 97 .* 96"):
        Decoder(model, END, context=CONTEXT + 1)
    decoder = Decoder(model, END)
    with pytest.raises(ValueError, match="close the decoder"):
        Decoder(model, END)
    decoder.close()
    assert [name for name, _ in model.parameters_and_names()] == names
