"""Examples are what the extractor separates; whole sites are held out; the rates are those of a loop."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.corpus.quality import HeldOut, held_out, kept_by_quality, spam_examples


def test_examples_are_balanced_pieces_and_none_comes_twice():
    menu = "首页 新闻 体育 财经 娱乐 科技 汽车 房产 教育 更多"
    pages = [
        ("http://a.example/1", "甲" * 450, menu),
        ("http://a.example/2", "乙" * 30, menu),
        ("http://b.example/1", "丙" * 10, "短"),
    ]
    found = spam_examples(pages, ["优惠大酬宾 点击购买 马上拨打 电话热线咨询"])
    assert found.texts[:3] == ["甲" * 200, menu, "乙" * 30]
    assert found.spam == [False, True, False, True]
    assert found.sites == ["a.example", "a.example", "a.example", "spam 0"]
    part = found.part(np.array([False, True, False, True]))
    assert part.sites == ["a.example", "spam 0"] and part.spam == [True, True]


def test_sites_are_held_out_as_a_whole_and_the_same_each_time():
    sites = [f"site{number % 500}.example" for number in range(2000)]
    out = held_out(sites, 0.2)
    by_site = {site: {*out[np.array(sites) == site].tolist()} for site in set(sites)}
    assert all(len(each) == 1 for each in by_site.values())
    assert 60 < sum(True in each for each in by_site.values()) < 140
    assert (held_out(sites, 0.2) == out).all() and (held_out(sites, 0.2, seed=2) != out).any()


def test_rates_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    scores, spam = np.round(rng.random(200), 1), rng.random(200) < 0.3
    found = HeldOut.of(scores, spam.tolist(), 0.6)
    pairs = [(a, b) for a in scores[spam] for b in scores[~spam]]
    assert found.area == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
    assert found.precision == spam[scores > 0.6].mean() and found.recall == (scores[spam] > 0.6).mean()
    assert HeldOut.of(scores, spam.tolist(), 1.0).precision is None
    with pytest.raises(ValueError, match="give pages of more sites"):
        HeldOut.of(scores, [True] * 200, 0.5)


def test_a_quality_score_keeps_the_share_of_paretos_distribution():
    ids = np.arange(200_000)
    for score in (0.0, 0.3, 0.7, 0.9, 1.0):
        kept = kept_by_quality(ids, np.full(len(ids), score), seed=1)
        expected = (2 - score) ** -9
        assert abs(kept.mean() - expected) < 3 * np.sqrt(expected * (1 - expected) / len(ids)) + 1e-12
    some = kept_by_quality(ids, np.full(len(ids), 0.7), seed=1)
    assert (kept_by_quality(ids[7:9], np.array([0.7, 0.7]), seed=1) == some[7:9]).all()
    assert (kept_by_quality(ids, np.full(len(ids), 0.7), seed=2) != some).any()
    assert (kept_by_quality(ids, np.full(len(ids), 0.8), seed=1) >= some).all()
