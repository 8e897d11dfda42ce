"""What the rules need beside a text, loaded once a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pangu_alpha.corpus.rules.words import WordList


@dataclass(frozen=True)
class Context:
    """Word lists and settings of a profile, as measures need them.

    Args:
        sensitive: The user's list; no measure shows its words.
        advertisement: Phrases of advertisements.
        personal_actions: "mask", "drop" or "keep" by kind of personal data.
    """

    sensitive: WordList = field(default_factory=lambda: WordList({}))
    advertisement: WordList = field(default_factory=lambda: WordList({}))
    personal_actions: Mapping[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the lists, for the settings of a stage."""
        return {"sensitive": self.sensitive.digest, "advertisement": self.advertisement.digest}
