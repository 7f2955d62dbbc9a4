"""The named sets of characters of regular expressions: ECMA-262's escapes, and Unicode's general categories."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby

from mlx_agent_llm.languages.regular.char_set import ALPHANUMERIC, ANY_CHARACTER, LAST_CODE_POINT, CharSet

DIGITS = CharSet.span("0", "9")
WORD = ALPHANUMERIC | CharSet.of("_")
LINE_ENDS = CharSet.of("\n\r\u2028\u2029")
BLANKS = CharSet.of(" \t\v\f\u00a0\ufeff\u1680\u202f\u205f\u3000") | CharSet.span("\u2000", "\u200a") | LINE_ENDS
ESCAPED_SETS = {"d": DIGITS, "D": ~DIGITS, "w": WORD, "W": ~WORD, "s": BLANKS, "S": ~BLANKS}

# The letters of ASCII that have a third form in Unicode's simple case folding: the Kelvin sign and the long s.
_THIRD_FORMS = {"k": "\u212a", "s": "\u017f"}

_CATEGORY_NAMES = {
    "Cased_Letter": "LC",
    "Close_Punctuation": "Pe",
    "Connector_Punctuation": "Pc",
    "Control": "Cc",
    "Currency_Symbol": "Sc",
    "Dash_Punctuation": "Pd",
    "Decimal_Number": "Nd",
    "Enclosing_Mark": "Me",
    "Final_Punctuation": "Pf",
    "Format": "Cf",
    "Initial_Punctuation": "Pi",
    "Letter": "L",
    "Letter_Number": "Nl",
    "Line_Separator": "Zl",
    "Lowercase_Letter": "Ll",
    "Mark": "M",
    "Math_Symbol": "Sm",
    "Modifier_Letter": "Lm",
    "Modifier_Symbol": "Sk",
    "Nonspacing_Mark": "Mn",
    "Number": "N",
    "Open_Punctuation": "Ps",
    "Other": "C",
    "Other_Letter": "Lo",
    "Other_Number": "No",
    "Other_Punctuation": "Po",
    "Other_Symbol": "So",
    "Paragraph_Separator": "Zp",
    "Private_Use": "Co",
    "Punctuation": "P",
    "Separator": "Z",
    "Space_Separator": "Zs",
    "Spacing_Mark": "Mc",
    "Surrogate": "Cs",
    "Symbol": "S",
    "Titlecase_Letter": "Lt",
    "Unassigned": "Cn",
    "Uppercase_Letter": "Lu",
    "digit": "Nd",
    "punct": "P",
}


def property_set(name: str) -> CharSet | None:
    r"""The characters that `\p{name}` stands for: a general category, Any or ASCII; None for all else."""
    if name == "Any":
        return ANY_CHARACTER
    if name == "ASCII":
        return CharSet.span("\0", "\x7f")
    key, _, value = name.rpartition("=")
    if key not in ("", "gc", "General_Category"):
        return None
    category = _CATEGORY_NAMES.get(value, value)
    if category not in _CATEGORY_NAMES.values():
        return None
    wanted = ("Ll", "Lt", "Lu") if category == "LC" else category
    return CharSet(span for key, spans in _spans_by_category().items() if key.startswith(wanted) for span in spans)


def ignore_case(char_set: CharSet) -> CharSet | None:
    """The set with every case of its characters, by Unicode's simple case folding.

    None unless, beyond ASCII, it holds all characters that have another case, or none: their folding is not known here.
    """
    letters = [char for low, high in (char_set & ALPHANUMERIC).ranges for char in map(chr, range(low, high + 1))]
    folded = char_set | CharSet.of("".join(char.lower() + char.upper() for char in letters))
    for letter, third in _THIRD_FORMS.items():
        if letter in folded:
            folded |= CharSet.of(third)
        elif third in folded:
            return None
    others = _cased_beyond_ascii() - CharSet.of("".join(_THIRD_FORMS.values()))
    return folded if folded & others in (CharSet(), others) else None


@lru_cache(maxsize=1)
def _cased_beyond_ascii() -> CharSet:
    every = map(chr, range(0x80, LAST_CODE_POINT + 1))
    return CharSet((ord(char), ord(char)) for char in every if char.lower() != char or char.upper() != char)


@lru_cache(maxsize=1)
def _spans_by_category() -> dict[str, list[tuple[int, int]]]:
    spans: dict[str, list[tuple[int, int]]] = {}
    first = 0
    for category, run in groupby(map(unicodedata.category, map(chr, range(LAST_CODE_POINT + 1)))):
        after = first + sum(1 for _ in run)
        spans.setdefault(category, []).append((first, after - 1))
        first = after
    return spans
