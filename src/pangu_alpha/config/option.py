"""What a field of a configuration declares about itself: its help, bounds, choices and page.

The checks of YAML, the command-line options, `train.py --keys` and docs/configuration.md derive from it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

REQUIRED = dataclasses.MISSING  # the default of a field without a default
KEY = "option"  # key of the declaration in a field's metadata
_QUOTE = "'"  # replaces Markdown's backquotes on a terminal


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of one field.

    Args:
        help: A phrase in plain English, without a final period; words in backquotes are keys and values.
        unit: Unit of the number.
        at_least: Smallest number allowed.
        above: Numbers must be greater than this.
        at_most: Largest number allowed.
        below: Numbers must be smaller than this.
        choices: Allowed words, for a field whose type does not name them.
        refusal: End of the error message for a number, where the bounds alone explain too little.
        see: Page and heading below docs/ with more about it, such as "training.md#saving".
        metavar: Placeholder for the value in a command's help; "" follows the type.
        omitted: Whether a saved configuration leaves out the field if it has its default, so that the files
            from before the field existed do not change.
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
        """The help as a table cell in docs/, with its unit and a link to the page that says more."""
        unit = f" (unit: {self.unit})" if self.unit else ""
        link = f" ([{self.see.partition('#')[0]}]({self.see}))" if self.see else ""
        return f"{self.help}{unit}{link}"

    def plain(self) -> str:
        """The help as it is shown on a terminal."""
        unit = f" (unit: {self.unit})" if self.unit and not self.metavar else ""
        page = f"; see docs/{self.see}" if self.see else ""
        return f"{self.help.replace('`', _QUOTE)}{unit}{page}"

    def bounds(self) -> str:
        """The bounds as the second half of "a number ..."; empty if there are none."""
        if lower := self._lower():
            return f"in {self._interval()}" if self._upper() else lower
        return self._upper()

    def fault(self, value: Any) -> str | None:
        """Says why a value of the right type, or an element of a list, is refused; None if it is allowed."""
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
    """Makes a field of a dataclass with its declaration.

    Args:
        default: The field's default, or REQUIRED.
        **declared: Further fields of Option.
    """
    return dataclasses.field(default=default, metadata={KEY: Option(help, **declared)})


def option_of(field: dataclasses.Field) -> Option | None:
    """Returns the declaration of a field; None for a section, or in a class that is not a configuration."""
    return field.metadata.get(KEY)


def _number(value: float | None) -> str:
    """A bound as people write it: 2^31 rather than 2147483648."""
    if isinstance(value, int) and value > 1 << 20 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    return f"{value:g}"
