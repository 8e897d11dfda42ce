"""Finds personal data: numbers with check digits, telephones, addresses, account names after a keyword.

Full-width digits and letters count as their narrow forms, one to one, so that places hold in the text.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_WIDE = re.compile("[\uff08-\uff0e\uff10-\uff19\uff20-\uff3a\uff41-\uff5a]")
# Whether the costlier expressions can find anything at all.
_HINT = re.compile(r"[0-9][0-9().\uff08\uff09 \-]{5}|@|qq|企鹅|扣扣|[微薇]信|[vw]x|v信|wechat", re.IGNORECASE)

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS = "10X98765432"
# First two digits of an ID number; 71, 81 to 83 are those of residents from Taiwan, Hong Kong and Macao.
_REGIONS = ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71), (81, 83))
_PROVINCES = frozenset(str(code) for first, last in _REGIONS for code in range(first, last + 1))
# Networks that are not on the public Internet (RFC 6890), as first and last address.
_INNER = (("0.0.0.0", "0.255.255.255"), ("10.0.0.0", "10.255.255.255"), ("100.64.0.0", "100.127.255.255"),
          ("127.0.0.0", "127.255.255.255"), ("169.254.0.0", "169.254.255.255"),
          ("172.16.0.0", "172.31.255.255"), ("192.0.0.0", "192.0.2.255"),
          ("192.168.0.0", "192.168.255.255"), ("198.18.0.0", "198.19.255.255"),
          ("198.51.100.0", "198.51.100.255"), ("203.0.113.0", "203.0.113.255"),
          ("224.0.0.0", "255.255.255.255"))  # fmt: skip


def is_id_number(number: str) -> bool:
    """Whether this is an ID number of 18 characters (GB 11643): province, date of birth, check digit."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number[:17], strict=True))
    return number[:2] in _PROVINCES and _is_date(number[6:14]) and _CHECKS[total % 11] == number[17].upper()


def is_old_id_number(number: str) -> bool:
    """Whether this is an ID number of 15 digits, issued until 1999: province and date of birth."""
    return number[:2] in _PROVINCES and _is_date(f"19{number[6:12]}") and number[12:] != "000"


def _is_date(digits: str) -> bool:
    try:
        born = datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return 1880 <= born.year < 2100  # a fixed range: today's date must not decide


def has_luhn_digit(number: str) -> bool:
    """Whether the last digit is the check digit of ISO/IEC 7812."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2])
    return (sum(map(int, number[-1::-2])) + sum(doubled)) % 10 == 0


def _is_card(number: str) -> bool:
    digits = re.sub("[ -]", "", number)
    return 16 <= len(digits) <= 19 and has_luhn_digit(digits) and len(set(digits)) > 1


def _packed(address: str) -> int:
    a, b, c, d = (int(part) for part in address.split("."))
    return a << 24 | b << 16 | c << 8 | d


def is_public_address(address: str) -> bool:
    """Whether this is an IPv4 address of the public Internet."""
    if any(len(part) > 3 or int(part) > 255 for part in address.split(".")):
        return False
    number = _packed(address)
    return not any(_packed(first) <= number <= _packed(last) for first, last in _INNER)


def _always(_: str) -> bool:
    return True


@dataclass(frozen=True)
class Kind:
    """One kind of personal data.

    Args:
        name: The key in profiles and counts.
        mark: What stands in its place when it is masked.
        pattern: Finds candidates; the group `it`, where there is one, is what counts.
        accepts: Checks a candidate.
    """

    name: str
    mark: str
    pattern: re.Pattern[str]
    accepts: Callable[[str], bool] = _always


_ALONE = r"(?<![0-9A-Za-z])"  # keeps out parts of longer codes, such as a company's credit code
_ENDS = r"(?![0-9A-Za-z])"
_DIGITS = re.ASCII
_ID_NUMBER = _ALONE + r"[1-9]\d{16}[0-9Xx]" + _ENDS
_OLD_ID_NUMBER = _ALONE + r"[1-9]\d{14}" + _ENDS
_CARD = r"(?<![0-9A-Za-z.-])(?:[3456]\d|95)\d\d(?:[ -]?\d{4}){3}(?:[ -]?\d{1,3})?" + _ENDS
_MOBILE = r"(?<![0-9A-Za-z.])(?:\+?86[- ]?)?1[3-9]\d(?:-\d{4}-| \d{4} |\d{4})\d{4}" + _ENDS
_AREA = r"(?:[(\uff08]0\d{2,3}[)\uff09] ?|(?:\+?86-)?0\d{2,3}-)"
_LANDLINE = _ALONE + _AREA + r"\d{7,8}(?:-\d{1,6})?" + _ENDS
_EMAIL = r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}" + _ENDS
_ADDRESS = r"(?<![0-9A-Za-z.])\d{1,3}(?:\.\d{1,3}){3}(?![0-9A-Za-z]|\.\d)"
_QQ = r"(?i:QQ|扣扣|企鹅号)(?:号码|号|群号|群)?[ \t]*(?:[:：]|是|为)?[ \t]*(?P<it>[1-9]\d{4,10})" + _ENDS
_WECHAT = (
    r"(?i:[微薇]信|WeChat|(?<![A-Za-z])[VW]X|V信)(?:(?i:号码?|ID|公众号)[ \t]*[:：]?|[ \t]*[:：])[ \t]*"
    r"(?P<it>[A-Za-z][A-Za-z0-9_-]{5,19})(?![A-Za-z0-9_-])"
)
# Earlier kinds take precedence where two overlap.
KINDS = (
    Kind("id_number", "<身份证号>", re.compile(_ID_NUMBER, _DIGITS), is_id_number),
    Kind("bank_card", "<银行卡号>", re.compile(_CARD, _DIGITS), _is_card),
    Kind("old_id_number", "<身份证号>", re.compile(_OLD_ID_NUMBER, _DIGITS), is_old_id_number),
    Kind("mobile", "<手机号>", re.compile(_MOBILE, _DIGITS)),
    Kind("landline", "<电话号码>", re.compile(_LANDLINE, _DIGITS)),
    Kind("email", "<邮箱>", re.compile(_EMAIL)),
    Kind("ip_address", "<IP地址>", re.compile(_ADDRESS, _DIGITS), is_public_address),
    Kind("qq", "<QQ号>", re.compile(_QQ, _DIGITS)),
    Kind("wechat", "<微信号>", re.compile(_WECHAT)),
)


@dataclass(frozen=True)
class Found:
    """One piece of personal data: its place in the text, and its kind."""

    start: int
    stop: int
    kind: Kind


def find_personal(text: str) -> list[Found]:
    """Finds all personal data in a text, in order of their places, without overlaps."""
    narrow = text.translate(_NARROW) if _WIDE.search(text) else text
    if _HINT.search(narrow) is None:
        return []
    found: list[Found] = []
    taken = bytearray(len(narrow))
    for kind in KINDS:
        for each in _of_kind(narrow, kind):
            if not any(taken[each.start : each.stop]):
                taken[each.start : each.stop] = bytes([1]) * (each.stop - each.start)
                found.append(each)
    return sorted(found, key=lambda each: each.start)


def _of_kind(text: str, kind: Kind) -> Iterator[Found]:
    group = "it" if "it" in kind.pattern.groupindex else 0
    for match in kind.pattern.finditer(text):
        if kind.accepts(match.group(group)):
            yield Found(match.start(group), match.end(group), kind)


def masked(text: str, actions: Mapping[str, str]) -> tuple[str, Counter[str]]:
    """Puts marks in the places of personal data.

    Args:
        actions: "mask", "drop" or "keep" by kind; only "mask" changes the text here.

    Returns:
        The text, and how many pieces of each kind were masked.
    """
    counts: Counter[str] = Counter()
    pieces, place = [], 0
    for found in find_personal(text):
        if actions.get(found.kind.name) == "mask":
            pieces += [text[place : found.start], found.kind.mark]
            place = found.stop
            counts[found.kind.name] += 1
    return ("".join([*pieces, text[place:]]), counts) if pieces else (text, counts)
