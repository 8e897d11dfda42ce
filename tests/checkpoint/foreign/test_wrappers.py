"""Fronts of other programs are taken off the names, if they are known and there is one of them."""

from __future__ import annotations

import pytest

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.foreign.torch.wrappers import unwrapped

ANCHORS = ("transformer.wqe.weight", "wqe.weight")
NAMES = ("transformer.wqe.weight", "transformer.wte.weight", "lm_head.weight")


def wrapped(front):
    return {front + name: number for number, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    "front",
    [
        "module.", "_orig_mod.", "model.", "state_dict.", "base_model.model.", "network.", "language_model.",
        "module._orig_mod.", "_orig_mod.module.", "state_dict.model.", "model.base_model.model.",
        "_forward_module.model.", "model_state_dict.module._fsdp_wrapped_module.", "net.",
        "_network._backbone.",
    ],
)  # fmt: skip
def test_known_fronts_are_taken_off_and_named(front):
    found, notes = unwrapped(wrapped(front), ANCHORS)
    assert found == wrapped("")
    assert notes == (f"{front!r} taken off the names of 3 tensors",)


def test_bare_names_stay_without_a_word():
    assert unwrapped(wrapped(""), ANCHORS) == (wrapped(""), ())
    assert unwrapped(wrapped("language_model."), ANCHORS, ["language_model."]) == (wrapped(""), ())


@pytest.mark.parametrize("front", ["student.", "teacher.model.", "modulex.", "model_"])
def test_an_unknown_front_stays(front):
    assert unwrapped(wrapped(front), ANCHORS) == (wrapped(front), ())


def test_what_training_scripts_keep_beside_the_weights_is_left_aside():
    beside = {"optimizer.state.0.exp_avg": 7, "lr_schedulers.0": 8, "rng_state": 9}
    found, notes = unwrapped(wrapped("model.") | beside, ANCHORS)
    assert found == wrapped("")
    assert notes[1] == "left aside, beside the weights: 3 tensors such as 'optimizer.state.0.exp_avg'"


def test_other_tensors_are_never_lost():
    found, _ = unwrapped(wrapped("model.") | {"adapter.weight": 7, "ema.transformer.wte.weight": 8}, ANCHORS)
    assert found == wrapped("") | {"adapter.weight": 7, "ema.transformer.wte.weight": 8}


def test_weights_that_are_there_twice_are_refused():
    with pytest.raises(CheckpointError, match="2 times, as 'model.transformer.wqe.weight', 'module.transf"):
        unwrapped(wrapped("model.") | wrapped("module."), ANCHORS)
    with pytest.raises(CheckpointError, match="lm_head.weight is there with 'model.' before it, too"):
        unwrapped(wrapped("model.") | {"lm_head.weight": 1}, ANCHORS)
