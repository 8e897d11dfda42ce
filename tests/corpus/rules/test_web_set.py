"""The rules on the whole web set of `corpus.py demo`: thousands of real Chinese pages."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config.corpus import Reading
from pangu_alpha.corpus.demo.packages import fetch_package, package_pages, packages
from pangu_alpha.corpus.reading import Page, html_page
from pangu_alpha.corpus.rules import RULE_NAMES, Context, load_words, measures, normalise, profile

sys.path.insert(0, str(Path(__file__).parent))
from references import REFERENCES

CONTEXT = Context(
    load_words("template"), load_words("advertisement"), {"email": "drop", "ip_address": "drop"}
)
LONGEST = 20_000  # characters; the references compare every line with every earlier one


@pytest.mark.long
@pytest.mark.parametrize("name", list(packages()))
def test_every_rule_equals_its_reference_on_every_page(name):
    try:
        path = fetch_package(packages()[name])
    except OSError as error:
        pytest.skip(str(error))
    settings = profile("pangu-alpha").normalise
    compared = 0
    for number, (address, content) in enumerate(package_pages(packages()[name], path)):
        page = html_page(number, address, content, "", Reading(), len(content))
        if not isinstance(page, Page):
            continue
        found = normalise(page.text, settings)
        assert len(page.text) == len(found.text) + sum(found.removed.values())
        for text in (page.text[:LONGEST], found.text[:LONGEST]):
            expected = [REFERENCES[rule](text, CONTEXT, page.title) for rule in RULE_NAMES]
            measured = measures(text, CONTEXT, page.title)
            np.testing.assert_array_equal(measured, np.array(expected, np.float32), err_msg=address)
        compared += 1
    assert compared > 5
