"""Classes of characters as regular expressions, used by the cleaner of files and by the corpus rules."""

from __future__ import annotations

import re

# Inside the brackets of a regular expression. Han are the unified ideographs of all planes, the compatibility
# ones, and the zero.
HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Controls, soft hyphen, zero-width and direction marks, byte order mark, replacement and non-characters.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]+"
)
SPACES = re.compile("[ \t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
NOT_HAN = re.compile(f"[^{HAN}]+")
