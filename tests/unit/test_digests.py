"""`Repr-Digest`: what is taken for a SHA-256, what is ignored, and what is refused."""

import base64
import hashlib

import pytest

from relay.client.checksum import Checksum
from relay.digests import REPR_DIGEST, digest_header, parse_digest
from relay.errors import Error, Problem

HEX = hashlib.sha256(b"hello").hexdigest()
CODE = base64.b64encode(bytes.fromhex(HEX)).decode()


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("", ""),
        (f"sha-256=:{CODE}:", HEX),
        (f" sha-256=:{CODE}: ", HEX),
        (f"sha-256=:{CODE}:;x=1", HEX),
        (f"sha-512=:AAAA:, sha-256=:{CODE}:", HEX),
        (f"sha-256=:{CODE}:,unixsum=:AAA=:", HEX),
        (f"sha-256=:{'A' * 43}=:, sha-256=:{CODE}:", HEX),  # RFC 9651 section 4.2.2: the last one counts
        ("sha-512=:AAAA:", ""),
        ("sha-2560=5", ""),
        ("???", ""),
        (",,", ""),
    ],
)
def test_the_sha_256_is_found_and_the_rest_ignored(field: str, found: str) -> None:
    assert parse_digest(field) == found


@pytest.mark.parametrize(
    "value",
    ["", "=", f"={CODE}", f"=:{CODE}", f"=:{HEX}:", "=:AAAA:", f"=:{CODE[:-1]}:", f"=:{CODE}::", f"=:{CODE[:-2]}*=:"],
)
@pytest.mark.parametrize("name", ["sha-256", "SHA-256"])
def test_a_malformed_sha_256_is_refused(name: str, value: str) -> None:
    with pytest.raises(Problem) as raised:
        parse_digest(f"sha-512=:AAAA:, {name}{value}")
    assert raised.value.error is Error.BAD_DIGEST


def test_it_is_written_as_it_is_read() -> None:
    assert digest_header("") == {}
    assert parse_digest(digest_header(HEX)[REPR_DIGEST]) == HEX


def test_bytes_that_pass_again_count_once_and_a_gap_is_an_error() -> None:
    checksum = Checksum()
    for offset, piece in ((0, b"he"), (0, b"h"), (1, b"el"), (2, b"l"), (3, b"lo")):
        checksum.add(offset, piece)
    assert (checksum.done, checksum.hex) == (5, HEX)
    with pytest.raises(ValueError, match="1 bytes are missing before byte 6"):
        checksum.add(6, b"x")
