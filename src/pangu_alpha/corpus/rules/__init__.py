"""Rules as functions on one document's text: what is changed, what is measured, what drops it, and profiles.

No files but the word lists and profiles, no engine, no state between documents.
"""

from pangu_alpha.corpus.rules.context import Context
from pangu_alpha.corpus.rules.listing import list_rules
from pangu_alpha.corpus.rules.normalise import Normalised, Normalising, normalise
from pangu_alpha.corpus.rules.personal import find_personal, masked
from pangu_alpha.corpus.rules.profiles import PROFILES, Profile, profile
from pangu_alpha.corpus.rules.table import (
    RULE_NAMES,
    RULES,
    SOURCES,
    Rule,
    broken_rules,
    failing,
    measures,
    verdict,
)
from pangu_alpha.corpus.rules.words import WordList, load_words

__all__ = [
    "PROFILES",
    "RULES",
    "RULE_NAMES",
    "SOURCES",
    "Context",
    "Normalised",
    "Normalising",
    "Profile",
    "Rule",
    "WordList",
    "broken_rules",
    "failing",
    "find_personal",
    "list_rules",
    "load_words",
    "masked",
    "measures",
    "normalise",
    "profile",
    "verdict",
]
