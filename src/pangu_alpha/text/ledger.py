"""Accounts for every character: given = kept + dropped, by reason. Knows neither files nor rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


class LedgerError(AssertionError):
    """The characters do not add up: a fault of this program, not of a text."""


@dataclass(frozen=True)
class CharacterLedger:
    """What one stage between a file and its tokens did with the characters it received.

    Args:
        given: Characters of the documents received.
        kept: Characters of the documents passed on.
        dropped: Characters not passed on, by reason.
    """

    given: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: CharacterLedger) -> CharacterLedger:
        """The joint ledger of two inputs that went through the same stages."""
        dropped = _summed(self.dropped, other.dropped)
        return CharacterLedger(self.given + other.given, self.kept + other.kept, dropped)

    def then(self, next_stage: CharacterLedger) -> CharacterLedger:
        """The ledger of this stage followed by the next one.

        Raises:
            LedgerError: The next stage did not receive what this one passed on.
        """
        if self.kept != next_stage.given:
            raise LedgerError(
                f"{self.kept:,} characters were handed on, {next_stage.given:,} arrived; please report this"
            )
        return CharacterLedger(self.given, next_stage.kept, _summed(self.dropped, next_stage.dropped))

    @property
    def missing(self) -> int:
        """Characters that are neither kept nor dropped for a reason; anything but 0 is a fault."""
        return self.given - self.kept - sum(self.dropped.values())

    def checked(self, where: object) -> CharacterLedger:
        """Returns this ledger if it adds up.

        Args:
            where: What the ledger is about, for the error message.

        Raises:
            LedgerError: The ledger does not add up.
        """
        if self.missing or min([self.given, self.kept, *self.dropped.values()]) < 0:
            raise LedgerError(f"{where}: characters do not add up: {self}; please report this")
        return self


def total(ledgers: Iterable[CharacterLedger]) -> CharacterLedger:
    """The sum of several ledgers."""
    return sum(ledgers, CharacterLedger())


def _summed(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in (Counter(first) + Counter(second)).items() if count}
