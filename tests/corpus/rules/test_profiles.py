from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.config.schema import ConfigError
from pangu_alpha.corpus.rules import PROFILES, RULE_NAMES, RULES, list_rules, load_words, profile


def applied(name, source):
    return {
        rule
        for rule, bound in zip(RULE_NAMES, profile(name).bounds_of(source), strict=True)
        if bound == bound
    }


def test_the_papers_bounds():
    bounds = profile("pangu-alpha").bounds
    assert (bounds.han_share, bounds.characters, bounds.sensitive_words) == (0.6, 150, 3)


def test_the_papers_table_3_says_which_rules_a_source_gets():
    assert {"han_share", "characters", "body_characters", "advertisement_words"} <= applied(
        "pangu-alpha", "common_crawl"
    )
    assert applied("pangu-alpha", "books") == {"sensitive_words", "personal_data"}
    assert applied("pangu-alpha", "news") == {"personal_data"}
    assert applied("pangu-alpha", "my_crawl") == applied("pangu-alpha", "common_crawl")
    assert applied("strict", "news") == set(RULE_NAMES)
    assert applied("none", "common_crawl") == set()
    assert not profile("pangu-alpha").normalising_of("news").navigation
    assert profile("pangu-alpha").normalising_of("my_crawl").navigation


def test_a_file_changes_a_shipped_profile(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: strict\nbounds: {characters: 80, mean_line: null}\nnormalise: {simplify: false}\n")
    mine = profile(str(path))
    assert (mine.bounds.characters, mine.bounds.mean_line, mine.bounds.han_share) == (80, None, 0.6)
    assert not mine.normalise.simplify
    assert mine.normalise.navigation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bounds: {han_shar: 0.5}", "han_share"),
        ("normalise: {navigaton: true}", "navigation"),
        ("normalise: {personal_data: {email: delete}}", "email"),
        ("base: pangu", "pangu-alpha"),
        ("bounds: {han_share: many}", "han_share"),
    ],
)
def test_a_bad_profile_is_refused_with_the_nearest_word(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        profile(str(path))


def test_an_unknown_profile_is_refused():
    with pytest.raises(ConfigError, match="did you mean"):
        profile("pangu-alfa")


def test_every_rule_and_profile_is_listed():
    listed = list_rules()
    assert all(rule.name in listed and rule.source in listed for rule in RULES)
    assert all(name in listed for name in PROFILES)


def test_a_list_of_words_is_read_folded_and_never_shown(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("\ufeff# 注释\n蘋果\ta\t1\nＡＢ\tb\n蘋果樹\texception\n\n", encoding="utf-8")
    words = load_words(str(path))
    assert words.words == {"苹果": "a", "ab": "b"}
    assert words.exceptions == {"苹果树"}
    assert words.found("他吃蘋果，不摘蘋果樹") == ["苹果"]
    assert "苹果" not in words.digest
    assert len(words.digest) == 64
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no word"):
        load_words(str(path))


def test_the_template_has_ten_harmless_words():
    words = load_words("template")
    assert len(words.words) + len(words.exceptions) == 10
    assert words.found("苹果树下喝茶，茶几上有苹果") == ["茶", "苹果"]


def test_bounds_are_numbers_for_every_rule():
    assert profile("strict").bounds_of("x").dtype == np.float32
    assert not np.isnan(profile("strict").bounds_of("x")).any()
