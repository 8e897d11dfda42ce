"""Choosing a token: the formulas, the limits, and reproducibility."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pangu_alpha.config.generate import SamplingConfig, requested
from pangu_alpha.config.schema import ConfigError, build
from pangu_alpha.inference.sampling import Sampler, candidates, draw, log_softmax, penalize

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


WIDE = 40_000


def wide_logits(spread, seed=0):
    """Of a vocabulary as large as the released one, with many equal ones among them."""
    logits = np.random.default_rng(seed).standard_normal(WIDE).astype(np.float32) * spread
    return np.round(logits, 4)


class Definition:
    """The sampler as it was before draws without a sort, but for the order of equals at top-k's border."""

    def __init__(self, config, prompt, banned, repetition=0):
        self.config, self.banned, self.counts = config, banned, np.zeros(banned.size, np.float32)
        self.random = Sampler(config, prompt, banned, repetition)._random

    def __call__(self, logits):
        config = self.config
        scores = penalize(logits if config.greedy else log_softmax(logits), self.counts, config)
        scores[self.banned] = -np.inf
        token = int(scores.argmax()) if config.greedy else self.draw(scores)
        self.counts[token] += 1
        return token

    def draw(self, scores):
        config = self.config
        ids = np.flatnonzero(scores > -np.inf)
        scores = scores.astype(np.float64)
        with np.errstate(over="ignore", under="ignore"):
            scores = (scores - scores.max()) / config.temperature
        ids = ids[np.argsort(-scores[ids], kind="stable")]
        if config.top_k:
            ids = ids[: config.top_k]
        probabilities = np.exp(scores[ids])
        cumulative = np.cumsum(probabilities)
        if config.top_p < 1.0:
            kept = int(np.searchsorted(cumulative, config.top_p * cumulative[-1])) + 1
            ids, probabilities = ids[:kept], probabilities[:kept]
        cumulative = np.cumsum(probabilities / probabilities.sum())
        return int(
            ids[min(int(np.searchsorted(cumulative, self.random.random(), side="right")), len(ids) - 1)]
        )


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0, 30.0])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_p": 1.0, "temperature": 1.0},
        {"top_p": 0.999, "temperature": 1.7},
        {"top_k": 50, "top_p": 1.0},
        {"top_k": 3000, "top_p": 0.8},
        {"temperature": 0.01, "top_p": 0.5},
        {"frequency_penalty": 0.7, "presence_penalty": 0.4},
        {"greedy": True, "presence_penalty": 3.0},
    ],
)
def test_seeded_draws_are_those_of_the_definition(spread, settings):
    config = SamplingConfig(**settings, seed=3)
    banned = np.zeros(WIDE, bool)
    banned[::7] = True
    new, old = Sampler(config, [1, 2], banned, 1), Definition(config, [1, 2], banned, 1)
    rows = [wide_logits(spread, seed) for seed in range(4)]
    assert [new(rows[n % 4]) for n in range(24)] == [old(rows[n % 4]) for n in range(24)]


def test_numbers_on_the_border_of_two_ids_are_left_to_the_definition():
    scores = np.zeros(8192, np.float32)
    config = SamplingConfig(temperature=1.0, top_p=1.0)
    assert [draw(scores, config, place / 8192) for place in range(0, 8192, 64)] == [*range(0, 8192, 64)]
    half = SamplingConfig(temperature=1.0, top_p=0.5)
    assert [draw(scores, half, place / 4096) for place in range(0, 4096, 64)] == [*range(0, 4096, 64)]


def exact_probabilities(logits, config, generated=(), bias=(), banned=()):
    """One id after another, in Python's own numbers."""
    score = {n: float(value) for n, value in enumerate(logits)}
    for token, count in Counter(generated).items():
        score[token] -= count * config.frequency_penalty + config.presence_penalty
    for token, value in dict(bias).items():
        score[token] += value
        if value <= -100:
            del score[token]
    for token in banned:
        score.pop(token, None)
    top = max(score.values())
    weight = {n: np.exp((value - top) / config.temperature) for n, value in score.items()}
    order = [n for n in sorted(weight, key=lambda n: -weight[n]) if weight[n] >= config.min_p]
    order = order[: config.top_k or None]
    total, mass, kept = sum(weight[n] for n in order), 0.0, []
    for n in order:
        if mass < config.top_p * total:
            kept.append(n)
        mass += weight[n]
    mass = sum(weight[n] for n in kept)
    return {n: weight[n] / mass for n in kept}


GENERATED = (3, 3, 3, 9, 40)
BIAS = {5: 2.5, 17: 0.8, 100: 6.0, 3: -1.0, 21: -100.0, 2: 50.0}


@pytest.mark.parametrize("size", [200, 5000])  # sorted, and not
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0, "top_p": 1.0},
        {"temperature": 0.5, "top_p": 1.0},
        {"temperature": 2.5, "top_p": 1.0},
        {"temperature": 1.0, "top_p": 1.0, "top_k": 25},
        {"temperature": 1.0, "top_p": 0.7},
        {"temperature": 1.3, "top_p": 0.9, "top_k": 60},
        {"temperature": 1.0, "top_p": 1.0, "min_p": 0.2},
        {"temperature": 1.2, "top_p": 0.8, "min_p": 0.01, "frequency_penalty": 0.8, "presence_penalty": 0.3},
    ],
)
def test_frequencies_pass_chi_square_against_exact_probabilities(size, settings):
    """With penalties, bias and bans throughout."""
    settings = {"frequency_penalty": 0.5, "presence_penalty": -0.2, **settings}
    config = SamplingConfig(**settings, seed=11)
    logits = np.random.default_rng(size).standard_normal(size).astype(np.float32) * 2
    banned = np.zeros(size, bool)
    banned[[1, 2, 30]] = True
    sampler = Sampler(config, [4], banned, 0, BIAS)
    expected = exact_probabilities(logits, config, GENERATED, BIAS, (1, 2, 30))
    draws = 6000
    counts = Counter()
    for _ in range(draws):
        sampler._counts = Counter(GENERATED)
        counts[sampler(logits)] += 1
    assert counts.keys() <= expected.keys() and not counts.keys() & {1, 2, 21, 30}
    groups, rest = [], [0.0, 0]
    for token, probability in expected.items():
        if probability * draws >= 8:
            groups.append((probability * draws, counts[token]))
        else:
            rest = [rest[0] + probability * draws, rest[1] + counts[token]]
    groups += [tuple(rest)] if rest[0] >= 8 else []
    statistic = sum((found - mean) ** 2 / mean for mean, found in groups)
    free = len(groups) - 1
    assert free >= 3 and statistic < free + 4 * np.sqrt(2 * free), (statistic, free)


def test_a_bias_reaches_greedy_choices_and_revives_no_banned_id():
    banned = np.array([False, True, False, False, False, False])
    greedy = SamplingConfig(greedy=True)
    assert Sampler(greedy, [1], banned, 0, {1: 100.0})(LOGITS) == 3
    assert Sampler(greedy, [1], banned, 0, {0: 5.0, 3: -100.0})(LOGITS) == 0
    assert Sampler(greedy, [1], banned, 0, {3: -100.0})(LOGITS) in (2, 4)
    plain = SamplingConfig(temperature=1.0, top_p=1.0)
    assert {Sampler(plain, [1], banned, n, {1: 100.0})(LOGITS) for n in range(50)} <= {0, 2, 3, 4, 5}


def test_temperature_0_is_greedy_whatever_stands_beside_it():
    config = requested(temperature=0, top_p=0.3, top_k=5, min_p=0.1, seed=4, presence_penalty=1.0)
    assert config == SamplingConfig(greedy=True, seed=4, presence_penalty=1.0)
    assert requested() == SamplingConfig(temperature=1.0, top_p=1.0)
    assert requested(temperature=0.5, top_p=0.9).top_p == 0.9
    with pytest.raises(ConfigError, match="temperature: -1"):
        requested(temperature=-1)


def test_min_p_is_relative_to_the_likeliest():
    ids, probabilities = candidates(LOGITS, SamplingConfig(temperature=1.0, top_p=1.0, min_p=0.5))
    assert ids.tolist() == [1, 3] and probabilities.tolist() == pytest.approx([4 / 7, 3 / 7])
    assert len(candidates(LOGITS, SamplingConfig(temperature=1.0, top_p=1.0, min_p=1.0))[0]) == 1
    with pytest.raises(ConfigError, match="min_p: 1.5 must lie between 0 and 1"):
        SamplingConfig(min_p=1.5)
