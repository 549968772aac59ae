"""The secrets that a request presents, and whether one of them is known. Pure."""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence


def presented(headers: Mapping[str, str]) -> list[str]:
    """Return the secret in `Authorization`: a Bearer token, or the password of Basic, which browsers ask for.

    The list is empty if there is none, or none that can be decoded.
    """
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return [value.strip()]
    if scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return []
        return [password] if colon else []
    return []


def matches(presented: Sequence[str], secrets: Sequence[str]) -> bool:
    """Return whether one of those presented is one of the secrets. An empty secret matches nothing.

    Each pair is compared in constant time, so that the time taken does not tell how close a guess was.
    """
    pairs = [(guess.encode(), secret.encode()) for guess in presented for secret in secrets if secret]
    return sum(hmac.compare_digest(guess, secret) for guess, secret in pairs) > 0
