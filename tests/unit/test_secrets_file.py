"""The file of named secrets: what is read of it, what is refused, and who is found in it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.secrets_file import NamedSecret, find_secret, read_secrets, secret_digest
from relay.settings import Settings

DIGEST = secret_digest("open sesame")
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secrets.toml"


def test_the_digest_is_sha_256_in_hex() -> None:
    assert secret_digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_all_fields_are_read(file: Path) -> None:
    file.write_text(f"""
        [alice]
        digest = "{DIGEST}"
        expires = 2027-01-31
        rate = "10/minute"
        life = 3600
        names = 5
        bytes = 10_000_000_000
        upload = 1_000_000_000
        ["b.o-b_2"]
        digest = "{secret_digest("other")}"
    """)
    secrets = read_secrets(file)
    assert list(secrets) == ["alice", "b.o-b_2"]
    alice = secrets["alice"]
    assert (alice.rate, alice.life, alice.names, alice.bytes, alice.upload) == ("10/minute", 3600, 5, 10**10, 10**9)
    bob = secrets["b.o-b_2"]
    assert (bob.expires, bob.rate, bob.life, bob.names, bob.bytes, bob.upload) == (None, "", 0, 0, 0, 0)


def test_an_empty_file_lets_nobody_in(file: Path) -> None:
    file.write_text("")
    assert read_secrets(file) == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[alice", "Expected ']' at the end of a table declaration"),
        ('digest = "x"', "digest is not a table: begin it with [NAME]"),
        ("[alice]", "alice: digest: Field required"),
        ('[alice]\ndigest = "open sesame"', "alice: digest: String should match pattern"),
        (f'[alice]\ndigest = "{DIGEST.upper()}"', "alice: digest: String should match pattern"),
        (f'[alice]\ndigest = "{DIGEST}"\nsecret = "open sesame"', "alice: secret: Extra inputs are not permitted"),
        (f'[alice]\ndigest = "{DIGEST}"\nrate = "often"', "alice: rate: must be such as 10/second"),
        (f'[alice]\ndigest = "{DIGEST}"\nnames = -1', "alice: names: Input should be greater than or equal to 0"),
        (f'[alice]\ndigest = "{DIGEST}"\nnames = 1.5', "alice: names: Input should be a valid integer"),
        (f'[alice]\ndigest = "{DIGEST}"\nnames = true', "alice: names: Input should be a valid integer"),
        (f'[alice]\ndigest = "{DIGEST}"\nbytes = {2**53}', "alice: bytes: Input should be less than"),
        (f'[alice]\ndigest = "{DIGEST}"\nexpires = "2027-01-31"', "alice: expires: must be a date"),
        (f'[alice]\ndigest = "{DIGEST}"\n[bob]\ndigest = "{DIGEST}"', "alice and bob have the same digest"),
        (f'["a b"]\ndigest = "{DIGEST}"', "'a b' must have 1 to 64 letters"),
    ],
)
def test_a_bad_file_is_refused_with_one_line(file: Path, text: str, line: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the line is compared below)
        read_secrets(file)
    assert line in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="token_secrets_file"):
        Settings(token_secrets_file=str(file))


def test_a_file_that_cannot_be_read_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="No such file or directory"):
        read_secrets(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_secrets(file)
    file.write_text("a = " + "[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_secrets(file)


@pytest.mark.parametrize(
    ("expires", "is_found"),
    [
        ("2026-11-28", True),  # all of that day
        ("2026-11-27", False),
        ("2026-11-28T12:00:00Z", True),
        ("2026-11-28T11:59:59Z", False),
        ("2026-11-28T13:30:00+02:00", False),
        ("2026-11-28T12:00:01", True),  # UTC
        ("2026-11-28T11:59:59", False),
    ],
)
def test_an_expired_secret_is_as_unknown_as_another(file: Path, expires: str, is_found: bool) -> None:
    file.write_text(f'[alice]\ndigest = "{DIGEST}"\nexpires = {expires}')
    assert (find_secret(["open sesame"], read_secrets(file), NOW) is not None) is is_found


def test_only_the_secret_itself_is_found() -> None:
    secrets = {"alice": NamedSecret(digest=DIGEST), "bob": NamedSecret(digest=secret_digest("other"))}
    assert find_secret(["open sesame"], secrets, NOW) == ("alice", secrets["alice"])
    assert find_secret(["other"], secrets, NOW) == ("bob", secrets["bob"])
    for guess in ("", "open sesam", "open sesame ", DIGEST, "alice"):
        assert find_secret([guess], secrets, NOW) is None
    assert find_secret([], secrets, NOW) is None
