"""Figures of the PanGu-alpha report that a corpus is compared with."""

from __future__ import annotations

# Table 3: gigabytes of each kind of source after cleaning.
GIGABYTES = {
    "public": 27.9,
    "books": 299.0,
    "common_crawl": 714.9,
    "news": 35.5,
    "encyclopedia": 22.0,
}
# Table 4: per cent of the tokens that were drawn from each, for the 200B model, and for 2.6B and 13B. The
# printed quantities are not sizes (public, books and news count what was drawn, encyclopedia what exists),
# and the second column adds up to 100.99.
WEIGHTS_200B = {
    "public": 10.23,
    "books": 12.23,
    "common_crawl": 62.81,
    "news": 7.83,
    "encyclopedia": 6.90,
}
WEIGHTS_SMALL = {
    "public": 27.99,
    "books": 18.0,
    "common_crawl": 10.0,
    "news": 22.0,
    "encyclopedia": 23.0,
}
RAW_TERABYTES, CLEAN_TERABYTES = 80, 1.1
