"""Prints the rules: those that drop a document, and those that change its text."""

from __future__ import annotations

import dataclasses
from typing import Any

from pangu_alpha.config.option import option_of
from pangu_alpha.corpus.rules.normalise import Normalising, PersonalData
from pangu_alpha.corpus.rules.profiles import PROFILES, Profile, profile
from pangu_alpha.corpus.rules.table import RULES


def list_rules() -> str:
    """The table of rules with each shipped profile's bound, as text."""
    shipped = {name: profile(name) for name in PROFILES}
    rows: list[tuple[str, ...]] = [
        ("rule", "direction", *PROFILES, "what is measured", "who set the threshold")
    ]
    for rule in RULES:
        bounds = [_number(getattr(each.bounds, rule.name)) for each in shipped.values()]
        rows.append((rule.name, rule.direction.replace("_", " "), *bounds, rule.help, rule.source))
    return "\n".join(
        [
            "Rules that drop a document, in the order in which the first failing one gives the reason:",
            _aligned(rows),
            "",
            "Rules that change a text (normalise in a profile):",
            _aligned(_changes(shipped)),
            "",
        ]
    )


def _changes(shipped: dict[str, Profile]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("rule", *PROFILES, "what is changed")]
    sections: list[tuple[type, list[Any]]] = [
        (Normalising, [each.normalise for each in shipped.values()]),
        (PersonalData, [each.normalise.personal_data for each in shipped.values()]),
    ]
    for cls, settings in sections:
        for each in dataclasses.fields(cls):
            declared = option_of(each)
            if declared is not None:
                values = [_word(getattr(setting, each.name)) for setting in settings]
                rows.append((each.name, *values, declared.plain()))
    return rows


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _number(bound: float | None) -> str:
    return "-" if bound is None else f"{bound:g}"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
