"""From files of any kind to pages of text: every record is a page, or is dropped for a counted reason.

Knows no rules about what is good text, no engine and no stages; the engine opens the files.
"""

from pangu_alpha.corpus.reading.inputs import (
    KINDS,
    LARGEST_PART,
    UNKNOWN,
    Input,
    Opener,
    Part,
    kind_of,
    split,
)
from pangu_alpha.corpus.reading.pages import REASONS, Dropped, Page
from pangu_alpha.corpus.reading.read import html_page, read_part

__all__ = [
    "KINDS",
    "LARGEST_PART",
    "REASONS",
    "UNKNOWN",
    "Dropped",
    "Input",
    "Opener",
    "Page",
    "Part",
    "html_page",
    "kind_of",
    "read_part",
    "split",
]
