"""Choosing a token: the formulas, the limits, and reproducibility."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.config.schema import ConfigError, build
from pangu_alpha.inference.sampling import Sampler, candidates, log_softmax, penalize

NONE = np.zeros(6, bool)
LOGITS = np.log(np.array([0.05, 0.4, 0.1, 0.3, 0.1, 0.05], np.float32))


def test_penalties_count_what_was_generated():
    config = SamplingConfig(frequency_penalty=1.5, presence_penalty=0.3)
    found = penalize(LOGITS, np.array([0, 2, 1, 0, 0, 0]), config)
    np.testing.assert_allclose(found - LOGITS, [0, -3.3, -1.8, 0, 0, 0], atol=1e-6)


def test_greedy_under_penalties_moves_on_to_the_next_token():
    sampler = Sampler(SamplingConfig(greedy=True, presence_penalty=20.0), [1], NONE)
    assert [sampler(LOGITS) for _ in range(4)] == [1, 3, 2, 4]


def test_top_k_and_top_p_keep_the_likeliest():
    def kept(**options):
        ids, probabilities = candidates(
            LOGITS, SamplingConfig(**{"temperature": 1.0, "top_p": 1.0, **options})
        )
        assert probabilities.sum() == pytest.approx(1)
        return ids.tolist()

    assert kept() == [1, 3, 2, 4, 0, 5]
    assert kept(top_k=2) == [1, 3]
    assert kept(top_k=100) == kept()
    assert kept(top_p=0.39) == [1]
    assert kept(top_p=0.41) == [1, 3]
    assert kept(top_p=0.75) == [1, 3, 2]
    assert kept(top_k=2, top_p=0.58) == [1, 3]  # of the two, token 1 alone has 4/7


def test_temperature_sharpens():
    _, cold = candidates(LOGITS, SamplingConfig(temperature=0.5, top_p=1.0))
    _, plain = candidates(LOGITS, SamplingConfig(temperature=1.0, top_p=1.0))
    np.testing.assert_allclose(cold, plain**2 / (plain**2).sum())


def test_draws_follow_the_probabilities():
    sampler = Sampler(SamplingConfig(temperature=1.0, top_p=1.0), [1], NONE)
    counts = np.bincount([sampler(LOGITS) for _ in range(4000)], minlength=6)
    np.testing.assert_allclose(counts / 4000, np.exp(LOGITS), atol=0.03)


def test_banned_ids_are_never_chosen():
    banned = np.array([False, True, False, True, False, False])
    assert Sampler(SamplingConfig(greedy=True), [1], banned)(LOGITS) == 2
    sampler = Sampler(SamplingConfig(temperature=1.0, top_p=1.0), [1], banned)
    assert {sampler(LOGITS) for _ in range(200)} == {0, 2, 4, 5}


def test_the_stream_depends_on_seed_prompt_and_repetition_only():
    def draw(seed=1, prompt=(1, 2), repetition=0):
        sampler = Sampler(SamplingConfig(seed=seed, temperature=1.0, top_p=1.0), prompt, NONE, repetition)
        return [sampler(LOGITS) for _ in range(30)]

    assert draw() == draw()
    assert (
        len({tuple(draw()), tuple(draw(seed=2)), tuple(draw(prompt=(2, 1))), tuple(draw(repetition=1))}) == 4
    )


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        Sampler(SamplingConfig(), [1], NONE)(np.full(6, np.nan, np.float32))


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-300, 1e-40, 1e300, 1.7e308])
@pytest.mark.parametrize("top_p", [5e-324, 1e-320, 1e-17, 1.0])
@pytest.mark.filterwarnings("error")
def test_extreme_temperatures_are_exact(temperature, top_p):
    config = SamplingConfig(temperature=temperature, top_p=top_p)
    ids, probabilities = candidates(LOGITS, config)
    assert np.isfinite(probabilities).all() and probabilities.sum() == pytest.approx(1)
    if temperature < 1 or top_p < 0.1:  # the limit is the likeliest token
        assert ids[0] == 1 and probabilities[0] == 1.0
        assert Sampler(config, [1], NONE)(LOGITS) == 1
    else:  # and all tokens alike
        np.testing.assert_allclose(probabilities, np.full(6, 1 / 6), rtol=1e-12)


def test_equals_share_the_limit_of_a_low_temperature():
    scores = np.array([-1.0, -0.5, -0.5, -2.0], np.float32)
    ids, probabilities = candidates(scores, SamplingConfig(temperature=1e-320, top_p=1.0))
    assert ids[:2].tolist() == [1, 2] and probabilities[:2].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty"])
@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.filterwarnings("error")
def test_extreme_penalties_are_finite(name, greedy):
    options = {"greedy": True} if greedy else {"top_p": 1.0}
    away = Sampler(SamplingConfig(**{name: 1e308}, **options), [1], NONE)
    assert sorted(away(LOGITS) for _ in range(6)) == [0, 1, 2, 3, 4, 5]  # none twice while there are others
    assert all(0 <= away(LOGITS) < 6 for _ in range(6))
    back = Sampler(SamplingConfig(**{name: -1e308}, **options), [1], NONE)
    assert len({back(LOGITS) for _ in range(6)}) == 1
    both = SamplingConfig(frequency_penalty=1e308, presence_penalty=-1e308)
    assert np.isfinite(penalize(LOGITS, np.array([0, 1, 2, 3, 1e6, 0]), both)).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0])
def test_numbers_that_are_not_finite_are_refused(value):
    for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        if name.endswith("penalty") and value == 0.0:
            assert penalize(LOGITS, np.ones(6), SamplingConfig(**{name: value})).tolist() == LOGITS.tolist()
        else:
            with pytest.raises(ConfigError, match=f"{name}: {value} must"):
                SamplingConfig(**{name: value})


def test_log_softmax_survives_large_logits():
    found = log_softmax(np.array([1e4, 1e4 - 1.0], np.float32))
    np.testing.assert_allclose(found, [-0.3132617, -1.3132617], rtol=1e-5)


def test_all_problems_of_a_config_at_once():
    with pytest.raises(ConfigError) as error:
        SamplingConfig(temperature=0.0, top_k=-1, top_p=1.5, max_new_tokens=0, seed=-1, stop=("",))
    assert len(error.value.problems) == 6
    with pytest.raises(ConfigError, match=r"top_k: 3 has no effect with greedy"):
        SamplingConfig(greedy=True, top_k=3)
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        build(SamplingConfig, {"temprature": 1.0})
