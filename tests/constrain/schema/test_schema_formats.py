"""Formats: whatever can be written is read by the readers that there are, and the usual texts can be written."""

from __future__ import annotations

import base64
import ipaddress
import random
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import AnyUrl, TypeAdapter

from mlx_agent_llm.bench.grammar_walks import random_text
from mlx_agent_llm.constrain.schema.values.formats import STRING_FORMATS, language_of_format

EMAIL = re.compile(r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*@([a-z0-9]+(-[a-z0-9]+)*\.)+[a-z]{2,20}")
HOST = re.compile(r"([a-z0-9]+(-[a-z0-9]+)*\.)*[a-z]{2,20}")


def fits(pattern: re.Pattern[str], most: int) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None and len(text) <= most


def decodes(decode: Callable[[str], bytes], encode: Callable[[bytes], bytes]) -> Callable[[str], bool]:
    return lambda text: encode(decode(text)).decode() == text


def of_version(version: int) -> Callable[[str], bool]:
    return lambda text: uuid.UUID(text).version == version and uuid.UUID(text).variant == uuid.RFC_4122


def reads(kind: Any) -> Callable[[str], Any]:
    adapter = TypeAdapter(kind)
    return lambda text: adapter.validate_json(f'"{text}"') is not None


# A reader says no by False or by a ValueError.
READERS: dict[str, list[Callable[[str], Any]]] = {
    "date": [date.fromisoformat, reads(date)],
    "time": [time.fromisoformat, reads(time)],
    "date-time": [datetime.fromisoformat, reads(datetime)],
    "duration": [reads(timedelta)],
    "email": [fits(EMAIL, 254)],
    "hostname": [fits(HOST, 253)],
    "ipv4": [ipaddress.IPv4Address],
    "ipv6": [ipaddress.IPv6Address],
    "ipvanyaddress": [ipaddress.ip_address],
    "uuid": [uuid.UUID],
    **{f"uuid{version}": [of_version(version)] for version in range(1, 9)},
    "uri": [reads(AnyUrl)],
    "base64": [decodes(lambda text: base64.b64decode(text, validate=True), base64.b64encode)],
    "base64url": [decodes(base64.urlsafe_b64decode, base64.urlsafe_b64encode)],
}
WRITTEN = {
    "date": ["2024-02-29", "1999-12-31", "0001-01-01"],
    "time": ["23:59:59Z", "00:00:00.5+02:00"],
    "date-time": ["2024-02-29T12:30:00Z", "1999-12-31T23:59:59.123456-05:00"],
    "duration": ["P3D", "PT5M", "P1DT2H3M4S", "P2W", "PT1H3S"],
    "email": ["ada.lovelace+x@example.co.uk"],
    "hostname": ["localhost", "a-b.example.com"],
    "ipv4": ["0.0.0.0", "255.10.99.100"],
    "ipv6": ["::", "::1", "1::", "2001:db8::8a2e:370:7334", "1:2:3:4:5:6:7:8"],
    "uuid": ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"],
    "uuid4": ["f47ac10b-58cc-4372-a567-0e02b2c3d479"],
    "uri": ["https://example.com", "http://a.bc:8080/x/%20y?z=1&q#f", "ftp://localhost/"],
    "uri-reference": ["/a/b?c=d", "https://example.com/"],
    "uri-template": ["https://example.com/users/{id}"],
    "json-pointer": ["", "/a/~0b/0"],
    "relative-json-pointer": ["0#", "2/a"],
    "base64": ["", "aGk=", "aGkh", "aA=="],
    "path": ["/tmp/a b.txt"],
    "password": ["", "any text \n"],
}
REFUSED = {
    "date": ["2023-02-29", "0000-01-01", "2024-13-01", "24-01-01", "1900-02-29", "2024-04-31"],
    "time": ["24:00:00Z", "12:60:00Z", "23:59:60Z", "12:00:00", "12:00Z"],
    "date-time": ["2024-02-30T00:00:00Z", "2024-02-28 00:00:00Z", "2024-02-28T00:00:00"],
    "duration": ["P", "PT", "P1", "1D", "P1DT"],
    "email": ["a@b", "a@x.test", "@b.cd", "a..b@c.de", "a@-b.cd"],
    "hostname": ["", "-a.bc", "a..bc", "xn--a.bc", "a_b.cd"],
    "ipv4": ["256.1.1.1", "1.1.1", "01.1.1.1"],
    "ipv6": ["1:2:3:4:5:6:7:8:9", ":::", "1::2::3", "12345::", ":1"],
    "uuid": ["2eb8aa08aa9811eab4aa73b441d16380"],
    "uuid4": ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"],
    "uri": ["example.com", "https://", "https://exa mple.com", "http://a.bc:0"],
    "base64": ["a", "aA=", "aB=="],
    "path": ["", "a\x00"],
}


@pytest.mark.parametrize("name", sorted(STRING_FORMATS))
def test_every_text_of_a_format_is_read(name: str) -> None:
    rng = random.Random(name)
    language = language_of_format(name)
    checker = Draft202012Validator.FORMAT_CHECKER
    for _ in range(200):
        text = random_text(language, rng)
        assert language.matches(text)
        assert checker.conforms(text, name), text
        for read in READERS.get(name, []):
            assert read(text) is not False, text


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in WRITTEN for text in WRITTEN[name]])
def test_usual_texts_can_be_written(name: str, text: str) -> None:
    assert language_of_format(name).matches(text)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in REFUSED for text in REFUSED[name]])
def test_other_texts_cannot_be_written(name: str, text: str) -> None:
    assert not language_of_format(name).matches(text)


def test_no_day_is_missing() -> None:
    dates = language_of_format("date")
    first = date(1896, 1, 1).toordinal()
    assert all(dates.matches(date.fromordinal(day).isoformat()) for day in range(first, first + 10 * 366))
