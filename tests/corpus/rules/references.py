"""Every rule of the table once more: slow, one line each, without numpy, tables or automata."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from pangu_alpha.corpus.rules.measured import STOP_CHARACTERS
from pangu_alpha.corpus.rules.personal import find_personal
from pangu_alpha.corpus.rules.script import simplified
from pangu_alpha.text.documents.encoding import usual_characters

HAN = r"[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
KANA = r"[\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff\uff66-\uff6f\uff71-\uff9d]"
BLANK = re.compile("[ \t\n\x0b\x0c\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def solid(text):
    return BLANK.sub("", text)


def lines(text):
    return [line.strip() for line in text.split("\n") if line.strip()]


def share(part, whole):
    return len(part) / max(len(whole), 1)


def grams(text, n):
    text = solid(text)
    return Counter(text[place : place + n] for place in range(len(text) - n + 1))


def repeated(text, n):
    counts = grams(text, n)
    return sum(count for count in counts.values() if count > 1) / max(sum(counts.values()), 1)


def top(text, n):
    counts = grams(text, n)
    most = max(counts.values(), default=0)
    return most / sum(counts.values()) if most > 1 else 0


def later(text):
    """The lines that came before."""
    every = lines(text)
    return [line for place, line in enumerate(every) if line in every[:place]]


def title_of(text, title):
    """The title in both scripts, one a line."""
    first = lines(text)[0] if lines(text) else ""
    known = title.strip() or (first if len(first) <= 60 and first[-1:] not in tuple("。！？!?…") else "")
    return f"{known}\n{simplified(known)[0]}"


def words(text, word_list):
    """Longest match from the left, by trying every word at every place."""
    text, found, place = unicodedata.normalize("NFKC", text).lower(), [], 0
    every = sorted([*word_list.words, *word_list.exceptions], key=len, reverse=True)
    while place < len(text):
        word = next((each for each in every if text.startswith(each, place)), None)
        found += [word] if word in word_list.words else []
        place += len(word) if word else 1
    return found


def dropped_personal(text, actions):
    return [each for each in find_personal(text) if actions.get(each.kind.name) == "drop"]


def body(text, title):
    title = title_of(text, title)
    return sum(len(solid(line)) for line in lines(text) if line not in title)


def unusual(text):
    usual = usual_characters() | {"〇"}
    return [each for each in re.findall(HAN, text) if each not in usual]


def body_characters(text, title):
    known = title_of(text, title)
    return body(text, title) if any(line in known for line in lines(text)) else len(solid(text))


ENDS = re.compile("[。！？!?…；;：:，,、.”’\"'）)》」』】]$")
ELLIPSIS = re.compile(r"(…|\.\.\.|。。。)$")

# name -> (text, context, title) -> number
REFERENCES = {
    "body_characters": lambda t, c, n: body_characters(t, n),
    "kana_share": lambda t, c, n: share(re.findall(KANA, t), solid(t)),
    "han_share": lambda t, c, n: share(re.findall(HAN, t), solid(t)),
    "characters": lambda t, c, n: len(solid(t)),
    "advertisement_words": lambda t, c, n: len(set(words(t, c.advertisement))),
    "sensitive_words": lambda t, c, n: len(set(words(t, c.sensitive))),
    "sensitive_hits": lambda t, c, n: len(words(t, c.sensitive)),
    "personal_data": lambda t, c, n: len(dropped_personal(t, c.personal_actions)),
    "rare_han_share": lambda t, c, n: share(unusual(t), re.findall(HAN, t)),
    "stop_characters": lambda t, c, n: len(set(t) & set(STOP_CHARACTERS)),
    "digit_share": lambda t, c, n: share(re.findall("[0-9０-９]", t), solid(t)),
    "sign_share": lambda t, c, n: share(re.findall(r"[#$+<=>^`|~*@%&/\\_]", t), solid(t)),
    "mean_line": lambda t, c, n: sum(map(len, lines(t))) / max(len(lines(t)), 1),
    "punctuated_lines": lambda t, c, n: share([x for x in lines(t) if ENDS.search(x)], lines(t)),
    "bullet_lines": lambda t, c, n: share([x for x in lines(t) if re.match("[•·‣*–—●○◦-]", x)], lines(t)),
    "ellipsis_lines": lambda t, c, n: share([x for x in lines(t) if ELLIPSIS.search(x)], lines(t)),
    "duplicate_lines": lambda t, c, n: share(later(t), lines(t)),
    "duplicate_line_characters": lambda t, c, n: share("".join(later(t)), "".join(lines(t))),
    "top_4gram": lambda t, c, n: top(t, 4),
    "repeated_10grams": lambda t, c, n: repeated(t, 10),
    "repeated_13grams": lambda t, c, n: repeated(t, 13),
}  # fmt: skip
