"""Parsing and encoding names and tokens."""

import re
import unicodedata
from email.message import Message
from urllib.parse import quote, unquote

import pytest

from relay.errors import Error, Problem
from relay.names import content_disposition, encode_name, parse_name

GOOD = [
    "a",
    "naïve file (1).tar.gz",
    "日本語.txt",
    "100%.bin",
    "a+b&c=d.txt",
    "{x}.txt",
    "...",
    ".hidden",
    "a:b;c",
    '"quoted"',
    "'single' $HOME `x`",
    "العربية שלום.txt",  # letters that are written from right to left need no controls
    "\u200eא\u200f.txt",  # marks change no order of letters
    "x" * 255,
    "é" * 127,
]

#: Embeddings, overrides and isolates: U+202A to U+202E, U+2066 to U+2069.
DIRECTIONS = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]

BAD = [
    (b"", "empty"),
    (b".", "folder"),
    (b"..", "folder"),
    (b"%2e%2E", "folder"),
    (b"a%2Fb", "slash"),
    (b"a%5cb", "slash"),
    (b"a\\b", "slash"),
    (b"a%00b", "control"),
    (b"a%0Ab", "control"),
    (b"a%7f", "control"),
    (b"a%C2%85b", "control"),
    *((quote(f"a{control}fdp.exe").encode(), "direction") for control in DIRECTIONS),
    (b"%ff", "UTF-8"),
    (b"%ed%a0%80", "UTF-8"),
    (b"%c0%af", "UTF-8"),
    (b"100%", "hex"),
    (b"%zz", "hex"),
    (b"x" * 256, "longer"),
    (b"%C3%A9" * 128, "longer"),
    (b"e%CC%81" * 128, "longer"),
    (b"%CC%81" * 100_000, "longer"),
    (b"%F0%9D%85%9E" * 63, "longer"),  # NFC makes three code points of this one
]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_survives(name: str) -> None:
    assert parse_name(quote(name, safe="").encode()) == name
    assert parse_name(quote(name).replace("/", "%2F").encode()) == name


@pytest.mark.parametrize("name", GOOD)
def test_a_name_has_one_encoded_form_of_plain_characters(name: str) -> None:
    encoded = encode_name(name)
    assert re.fullmatch(r"[A-Za-z0-9._~%-]+", encoded)
    assert parse_name(encoded.encode()) == name


@pytest.mark.parametrize(("raw", "why"), BAD)
def test_a_bad_name_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_name(raw)
    assert caught.value.error is Error.BAD_NAME
    assert why in caught.value.line


@pytest.mark.parametrize("name", ["é.txt", "Ångström", "한국어 이름" * 15 + ".pdf", "ợ"])
def test_a_name_as_macos_sends_it_is_the_same_name(name: str) -> None:
    """macOS decomposes names (NFD). A name of 255 bytes in NFC may have three times as many in NFD."""
    decomposed = unicodedata.normalize("NFD", name)
    assert decomposed != name
    assert parse_name(quote(decomposed).encode()) == parse_name(quote(name).encode()) == name


@pytest.mark.parametrize("name", GOOD)
def test_content_disposition_carries_the_exact_name_and_an_ascii_one(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    plain, _, extended = header.partition("; filename*=UTF-8''")
    assert unquote(extended, errors="strict") == name
    message = Message()
    message["content-disposition"] = plain
    assert message.get_content_disposition() == "attachment"
    fallback = message.get_filename()
    assert fallback is not None
    assert not set(fallback) & set('"\\/%;')
