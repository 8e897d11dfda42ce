"""What a field of a configuration declares about itself, once: its help, bounds, words and page.

The checks of YAML, the options of command lines, `train.py --keys` and docs/configuration.md derive from it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

REQUIRED = dataclasses.MISSING  # the default of a field that has none
KEY = "option"  # of the declaration in the metadata of a field
_QUOTE = "'"  # on a terminal, for the backquotes of Markdown


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of one field.

    Args:
        help: A phrase in plain English, without a final period; words in backquotes are keys and values.
        unit: Unit of the number.
        at_least: Smallest number.
        above: All numbers are greater.
        at_most: Largest number.
        below: All numbers are smaller.
        choices: Allowed words of a field whose type does not name them.
        refusal: How a refusal of a number goes on behind the number, where the bounds alone say too little.
        see: Page and heading below docs/ that say more, such as "training.md#saving".
        metavar: What stands for the value in a command's help; by default as the type has it.
        omitted: Whether a configuration that is saved leaves the field out where it has its default, so that
            files saved before the field was there do not change.
    """

    help: str
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    refusal: str = ""
    see: str = ""
    metavar: str = ""
    omitted: bool = False

    def markdown(self) -> str:
        """The help as a cell of a table in docs/, with its unit and a link to the page that says more."""
        unit = f" (unit: {self.unit})" if self.unit else ""
        link = f" ([{self.see.partition('#')[0]}]({self.see}))" if self.see else ""
        return f"{self.help}{unit}{link}"

    def plain(self) -> str:
        """The help as a terminal shows it."""
        unit = f" (unit: {self.unit})" if self.unit and not self.metavar else ""
        page = f"; see docs/{self.see}" if self.see else ""
        return f"{self.help.replace('`', _QUOTE)}{unit}{page}"

    def bounds(self) -> str:
        """The bounds as the second half of "a number ...", empty where there are none."""
        if lower := self._lower():
            return f"in {self._interval()}" if self._upper() else lower
        return self._upper()

    def fault(self, value: Any) -> str | None:
        """Why a well-typed value, or an element of a list, is refused; None if it is not."""
        values = value if isinstance(value, tuple) else (value,)
        found = next((each for each in values if not self._allows(each)), None)
        if found is None:
            return None
        return f"{found!r} {self.refusal or self._rule(found)}"

    def _allows(self, value: Any) -> bool:
        if isinstance(value, str):
            return not self.choices or value in self.choices
        if not isinstance(value, int | float) or isinstance(value, bool):
            return True
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _rule(self, value: Any) -> str:
        if isinstance(value, str):
            return f"is not one of {', '.join(self.choices)}"
        if self._lower() and self._upper():
            return f"must lie in {self._interval()}"
        if self.above is not None:
            return "must be positive" if self.above == 0 else f"must be greater than {_number(self.above)}"
        return "must not be negative" if self.at_least == 0 else f"must be {self.bounds()}"

    def _lower(self) -> str:
        if self.above is not None:
            return f"above {_number(self.above)}"
        return "" if self.at_least is None else f"at least {_number(self.at_least)}"

    def _upper(self) -> str:
        if self.below is not None:
            return f"below {_number(self.below)}"
        return "" if self.at_most is None else f"at most {_number(self.at_most)}"

    def _interval(self) -> str:
        left = f"[{_number(self.at_least)}" if self.above is None else f"({_number(self.above)}"
        right = f"{_number(self.at_most)}]" if self.below is None else f"{_number(self.below)})"
        return f"{left}, {right}"


def option(default: Any, help: str, **declared: Any) -> Any:
    """A field of a dataclass with its declaration.

    Args:
        default: Its default, or REQUIRED.
        help: See Option.
        **declared: Further fields of Option.
    """
    return dataclasses.field(default=default, metadata={KEY: Option(help, **declared)})


def option_of(field: dataclasses.Field) -> Option | None:
    """The declaration of a field, None where it has none: a section, or a class that is no configuration."""
    return field.metadata.get(KEY)


def _number(value: float | None) -> str:
    """A bound as people write it: 2^31 rather than 2147483648."""
    if isinstance(value, int) and value > 1 << 20 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    return f"{value:g}"
