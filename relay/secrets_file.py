"""The file of RELAY_TOKEN_SECRETS_FILE: who may make tokens, and what these tokens may do.

It is TOML, with one table for each secret. Only `digest` is needed:

    [alice]
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    expires = 2027-01-31         # the last day, in UTC, or the last moment at which it works
    rate = "10/minute"           # of making tokens, from all addresses together
    life = 3600                  # maximum seconds that a token lives, however often it is used
    names = 5                    # maximum names of one token in use at a time
    bytes = 10_000_000_000       # maximum sum of the bytes of all transfers of one token
    upload = 1_000_000_000       # maximum bytes of one upload

`digest` is SHA-256 of the secret, in hex digits. It need not be slow, because secrets are random: `relay secret` makes
those of 131 bits.
"""

import hashlib
import hmac
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from relay.rates import parse_rate

#: What the name of a secret may be. Logs and metrics have it.
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Larger numbers are not exact in Lua, with which Redis compares them.
_Limit = Annotated[int, Field(ge=0, lt=2**53, strict=True)]


class NamedSecret(BaseModel):
    """One secret, and the limits of the tokens that are made with it. 0 and an empty rate mean no limit of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires: datetime | date | None = None
    rate: str = ""
    life: _Limit = 0
    names: _Limit = 0
    bytes: _Limit = 0
    upload: _Limit = 0

    @field_validator("expires", mode="before")
    @classmethod
    def _moment(cls, value: Any) -> Any:
        if not isinstance(value, date):  # a datetime is one, too
            raise ValueError("must be a date, such as 2027-01-31, without quotes")
        return value

    @field_validator("rate")
    @classmethod
    def _rate(cls, value: str) -> str:
        try:
            parse_rate(value)
        except ValueError:
            raise ValueError("must be such as 10/second, 600/minute or 600 per 2 hours") from None
        return value

    def is_over(self, now: datetime) -> bool:
        """Return whether it has expired at an aware `now`."""
        if self.expires is None:
            return False
        if isinstance(self.expires, datetime):
            return now > (self.expires if self.expires.tzinfo else self.expires.replace(tzinfo=UTC))
        return now >= datetime.combine(self.expires + timedelta(days=1), time(), UTC)


def secret_digest(secret: str) -> str:
    """Return what the file has of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_secrets(path: Path) -> dict[str, NamedSecret]:
    """Return the secrets in a file by name. Raise ValueError with one line that says what is wrong with it."""
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise ValueError(f"{path}: it is nested too deeply") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ValueError(f"{path}: {error}") from None
    found = {name: _secret(path, name, table) for name, table in tables.items()}
    by_digest = {secret.digest: name for name, secret in found.items()}
    for name, secret in found.items():
        if by_digest[secret.digest] != name:
            raise ValueError(f"{path}: {name} and {by_digest[secret.digest]} have the same digest")
    return found


def _secret(path: Path, name: str, table: object) -> NamedSecret:
    if not isinstance(table, dict):
        raise ValueError(f"{path}: {name} is not a table: begin it with [NAME]")
    if not NAME.fullmatch(name):
        raise ValueError(f"{path}: {name!r} must have 1 to 64 letters, digits, dots, dashes or underscores")
    try:
        return NamedSecret.model_validate(table)
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(map(str, wrong["loc"]))
        raise ValueError(f"{path}: {name}: {field}: {wrong['msg'].removeprefix('Value error, ')}") from None


def find_secret(
    guesses: Sequence[str], secrets: Mapping[str, NamedSecret], now: datetime
) -> tuple[str, NamedSecret] | None:
    """Return the name and the table of the secret that a client has presented; None if it is unknown or has expired.

    All are compared, so that the time taken tells nothing about them.
    """
    found = None
    for guess in guesses:
        digest = secret_digest(guess)
        for name, secret in secrets.items():
            if hmac.compare_digest(digest, secret.digest) and not secret.is_over(now):
                found = name, secret
    return found
