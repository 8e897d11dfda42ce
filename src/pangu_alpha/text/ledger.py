"""What became of every character: given = kept + dropped, by reason. Knows neither files nor rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


class LedgerError(AssertionError):
    """Characters that appear from nowhere or go without a reason: a fault of this program, not of a text."""


@dataclass(frozen=True)
class CharacterLedger:
    """The characters that one stage of the way from a file to tokens was given, and what it did with them.

    Args:
        given: Characters of the documents it was given.
        kept: Characters of the documents it handed on.
        dropped: Characters it did not hand on, by reason.
    """

    given: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: CharacterLedger) -> CharacterLedger:
        """The ledger of two files that went through the same stages."""
        dropped = _summed(self.dropped, other.dropped)
        return CharacterLedger(self.given + other.given, self.kept + other.kept, dropped)

    def then(self, next_stage: CharacterLedger) -> CharacterLedger:
        """The ledger of this stage and the one behind it.

        Raises:
            LedgerError: What this one handed on is not what the next was given.
        """
        if self.kept != next_stage.given:
            raise LedgerError(
                f"{self.kept:,} characters were handed on, {next_stage.given:,} arrived; please report this"
            )
        return CharacterLedger(self.given, next_stage.kept, _summed(self.dropped, next_stage.dropped))

    @property
    def missing(self) -> int:
        """Characters without a reason; anything but 0 is a fault."""
        return self.given - self.kept - sum(self.dropped.values())

    def checked(self, where: object) -> CharacterLedger:
        """This ledger, which adds up.

        Raises:
            LedgerError: It does not; names `where`.
        """
        if self.missing or min([self.given, self.kept, *self.dropped.values()]) < 0:
            raise LedgerError(f"{where}: characters do not add up: {self}; please report this")
        return self


def total(ledgers: Iterable[CharacterLedger]) -> CharacterLedger:
    """The sum of ledgers."""
    return sum(ledgers, CharacterLedger())


def _summed(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in (Counter(first) + Counter(second)).items() if count}
