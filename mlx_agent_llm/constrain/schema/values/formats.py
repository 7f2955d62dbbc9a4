"""The formats of strings as languages: each holds only texts that every usual reader of the format accepts.

So they hold less than their specifications allow. Dates and times are real ones of the years 1 to 9999, without leap
seconds. Names of hosts are lower-case ASCII and end in a domain of letters; e-mail addresses have such a host and an
unquoted local part. Durations have days, hours, minutes and seconds, or weeks. International formats are written in
ASCII.
"""

from __future__ import annotations

from functools import lru_cache

from mlx_agent_llm.constrain.schema.values.number_type import ANY_NUMBER, High, Low, NumberType, holds
from mlx_agent_llm.languages.regex import parse_regex
from mlx_agent_llm.languages.regular import ANY_TEXT, Language, complement, intersection

MONTH_AND_DAY = (
    "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
YEAR = "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
DATE = f"({YEAR}-{MONTH_AND_DAY}|{LEAP_YEAR}-02-29)"
CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
OFFSET = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
DURATION = "P([0-9]{1,4}W|[0-9]{1,6}D(T{T})?|T{T})".replace(
    "{T}", "([0-9]{1,6}H([0-9]{1,6}M)?([0-9]{1,6}S)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S)"
)
WORD = "[a-z0-9]{1,20}"
LABEL = f"{WORD}(-{WORD}){{0,2}}"
DOMAIN = "[a-z]{2,20}"
HOST = rf"({LABEL}\.){{0,3}}{DOMAIN}"
LOCAL_WORD = "[a-z0-9_+-]{1,20}"
BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"{BYTE}(\.{BYTE}){{3}}"
GROUP = "[0-9a-f]{1,4}"
IPV6 = "|".join(
    [f"({GROUP}:){{7}}{GROUP}", "::"]
    + [f"({GROUP}:){{1,{7 - count}}}(:{GROUP}){{{count}}}" for count in range(1, 7)]
    + [f"({GROUP}:){{1,7}}:", f":(:{GROUP}){{1,7}}"]
)
HEX = "[0-9a-f]"
PERCENT = "%[0-9A-F]{2}"
PATH = rf"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|{PERCENT})*)*"
QUERY = rf"(\?([A-Za-z0-9._~!$&'()*+,;=:@/?-]|{PERCENT})*)?(#([A-Za-z0-9._~!$&'()*+,;=:@/?-]|{PERCENT})*)?"
URL_REST = rf"{HOST}(:([1-9][0-9]{{0,3}}|[1-5][0-9]{{4}}))?{PATH}{QUERY}"


def _integers(first: int, last: int) -> NumberType:
    return NumberType(Low(first, False), High(last, True), is_integer=True)


def _uuid(version: str) -> str:
    return f"{HEX}{{8}}-{HEX}{{4}}-{version}{HEX}{{3}}-[89ab]{HEX}{{3}}-{HEX}{{12}}"


_TOKEN = r"([^/~\x00-\x1f]|~[01])*"
_PATTERNS = {
    "date": DATE,
    "time": CLOCK + OFFSET,
    "date-time": f"{DATE}T{CLOCK}{OFFSET}",
    "duration": DURATION,
    "hostname": HOST,
    "ipv4": IPV4,
    "ipv6": IPV6,
    "email": rf"{LOCAL_WORD}(\.{LOCAL_WORD}){{0,2}}@({LABEL}\.){{1,3}}{DOMAIN}",
    "path": r"[^\x00]+",
    "ipvanyaddress": f"{IPV4}|{IPV6}",
    "uuid": f"{HEX}{{8}}(-{HEX}{{4}}){{3}}-{HEX}{{12}}",
    **{f"uuid{version}": _uuid(str(version)) for version in range(1, 9)},
    "uri": rf"(https?|ftp|wss?)://{URL_REST}",
    "uri-reference": rf"(https?|ftp|wss?)://{URL_REST}|(/[A-Za-z0-9._~-]+)+{QUERY}",
    "uri-template": rf"(https?|ftp)://{HOST}(/([A-Za-z0-9._~-]|\{{[A-Za-z0-9_]+\}})*)*",
    "json-pointer": f"(/{_TOKEN})*",
    "relative-json-pointer": f"(0|[1-9]{{1,4}})(#|(/{_TOKEN})*)",
    "base64": "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?",
    "base64url": "([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw]==|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]=)?",
}
# Domains for special use (RFC 6761): readers of addresses refuse them.
_SPECIAL_DOMAIN = r"[@.](arpa|internal|invalid|local|localhost|onion|test)$"
# Written in the same way, or any text at all. Whether a path leads to a file nobody can know here.
_ALIASES = {
    "idn-email": "email",
    "idn-hostname": "hostname",
    "iri": "uri",
    "iri-reference": "uri-reference",
    **{f"ipv4{kind}": "ipv4" for kind in ("network", "interface")},
    **{f"ipv6{kind}": "ipv6" for kind in ("network", "interface")},
    **{f"ipvany{kind}": "ipvanyaddress" for kind in ("network", "interface")},
    "byte": "base64",
    "file-path": "path",
    "directory-path": "path",
}
# What no reader takes does not match. Where that is hard to say there is none: no text is surely not of the format.
_DAY = "[0-9]{4}-?[0-9]{2}-?[0-9]{2}"
_WIDE_PATTERNS = {
    "date": "^([0-9]{4}-?(W?[0-9]{2}(-?[0-9]{1,2})?|[0-9]{3}))$",
    "time": "^[Tt]?[0-9]{2}(:?[0-9]{2})?",
    "date-time": f"^{_DAY}([Tt _]|$)",
    "duration": "^[+-]?P",
    "hostname": r"^[^\s@:/\\?#]+$",
    "ipv4": "^[0-9a-fA-FxX.]+(/.*)?$",
    "ipv6": "^[^ ]*:[^ ]*:",
    "ipvanyaddress": "^[0-9a-fA-FxX.]+(/.*)?$|^[^ ]*:[^ ]*:",
    "email": "@",
    "uuid": "^[0-9a-fA-F{}:urnidURNID-]+$",
    **{f"uuid{version}": "^[0-9a-fA-F{}:urnidURNID-]+$" for version in range(1, 9)},
    "uri": "^[A-Za-z][^:]*:",
    "json-pointer": "^(/|$)",
    "relative-json-pointer": "^[0-9]",
    "base64": r"^[A-Za-z0-9+/=_\s-]*$",
    "base64url": r"^[A-Za-z0-9+/=_\s-]*$",
}
_ANY_TEXT = ("binary", "password")
STRING_FORMATS = frozenset([*_PATTERNS, *_ALIASES, *_ANY_TEXT])
# OpenAPI's. Every number that the grammars write is a double.
NUMBER_FORMATS = {
    **{f"int{bits}": _integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": _integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    "float": ANY_NUMBER,
    "double": ANY_NUMBER,
}


@lru_cache
def language_of_format(name: str) -> Language:
    """Texts of one of STRING_FORMATS."""
    if name in _ANY_TEXT:
        return ANY_TEXT
    name = _ALIASES.get(name, name)
    language = parse_regex(f"^({_PATTERNS[name]})$")
    return intersection(language, complement(parse_regex(_SPECIAL_DOMAIN))) if name == "email" else language


@lru_cache
def widest_language_of_format(name: str) -> Language:
    """All texts that any reader of a format may take."""
    name = _ALIASES.get(name, name)
    return parse_regex(_WIDE_PATTERNS[name]) if name in _WIDE_PATTERNS else ANY_TEXT


def is_of_number_format(name: str, value: int | float) -> bool:
    """Whether a number is one of a format of NUMBER_FORMATS."""
    numbers = NUMBER_FORMATS[name]
    is_within = numbers.low is None or numbers.high is None or numbers.low.value <= value <= numbers.high.value
    return is_within and holds(numbers, value)
