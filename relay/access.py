"""What opens a private space of names: tokens, and links to one name of it. Pure.

A token is an id and a secret in one word. The id is public: keys, logs and pages have it. Redis has a digest of the
secret, and a request proves that it may use the space by showing a secret with that digest.

A link is for those who may only receive, or only send, one name. It is the id, a letter, and a signature over the
name whose key is the digest. So whoever has the token can make one without asking, and a node can check it without
anything stored for it:

    DIGEST = the first 32 hex digits of SHA-256(SECRET)
    LINK   = ID, "r" or "s", and the first 32 hex digits of HMAC-SHA-256(key DIGEST, "r:NAME" or "s:NAME")

NAME is UTF-8 in Unicode's form NFC, not percent-encoded. DIGEST is used as its hex digits.
"""

import hashlib
import hmac
import re
import secrets
import string
from enum import StrEnum
from typing import NamedTuple, Self

from relay.errors import Error, Problem

#: There is no `-` or `_`, so that a double click selects the whole token, and a token never looks like a command-line
#: flag.
_ALPHABET = string.ascii_letters + string.digits
#: 8 letters and digits are 47 bits: a cluster with a million live tokens makes one that exists in 1 of 200 million
#: trials, and then makes another one.
ID_LENGTH = 8
#: 22 letters and digits are 131 bits.
SECRET_LENGTH = 22
_SIGNATURE_LENGTH = 32
_TOKEN = re.compile(rb"[A-Za-z0-9]{%d}" % (ID_LENGTH + SECRET_LENGTH))
_LINK = re.compile(rb"[A-Za-z0-9]{%d}[rs][0-9a-f]{%d}" % (ID_LENGTH, _SIGNATURE_LENGTH))


class Right(StrEnum):
    """What a link allows. The values are the letters by which links say so."""

    RECEIVE = "r"
    SEND = "s"


class Access(NamedTuple):
    """The space of names that a request may use: the id of its token, and the digest of the secret that proves it.

    With an empty proof, the caller acts for the cluster or its operator, and no script asks for a proof.
    """

    id: str
    proof: str

    @classmethod
    def of_operator(cls, token_id: str) -> Self:
        """Return the access of somebody who may use Redis itself, and needs no secret."""
        return cls(token_id, "")

    def __repr__(self) -> str:
        return f"<Access {self.id}>"  # whoever has the proof can make links


class Token(NamedTuple):
    """A token: its public id, and its secret."""

    id: str
    secret: str

    @classmethod
    def new(cls) -> Self:
        """Return a new token."""
        return cls(random_word(ID_LENGTH), random_word(SECRET_LENGTH))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return the token in a path segment. Raise Problem(UNKNOWN_TOKEN) if it cannot be one."""
        if not _TOKEN.fullmatch(raw):
            raise Problem(Error.UNKNOWN_TOKEN)
        word = raw.decode("ascii")
        return cls(word[:ID_LENGTH], word[ID_LENGTH:])

    def __str__(self) -> str:
        return self.id + self.secret

    def __repr__(self) -> str:
        return f"<Token {self.id}>"

    @property
    def access(self) -> Access:
        return Access(self.id, digest_of(self.secret))


class Link(NamedTuple):
    """A link to one name of a token's space."""

    id: str
    right: Right
    signature: str

    @classmethod
    def make(cls, access: Access, right: Right, name: str) -> Self:
        """Return the link to a decoded name."""
        signature = hmac.digest(access.proof.encode(), f"{right}:{name}".encode(), "sha256").hex()[:_SIGNATURE_LENGTH]
        return cls(access.id, right, signature)

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """Return the link in a path segment, or None if it cannot be one."""
        if not _LINK.fullmatch(raw):
            return None
        word = raw.decode("ascii")
        return cls(word[:ID_LENGTH], Right(word[ID_LENGTH]), word[ID_LENGTH + 1 :])

    def __str__(self) -> str:
        return self.id + self.right + self.signature

    def __repr__(self) -> str:
        return f"<Link {self.id}{self.right}>"

    def is_to(self, access: Access, name: str) -> bool:
        """Return whether it is the link to this name. This takes as long for any signature."""
        return hmac.compare_digest(self.signature, Link.make(access, self.right, name).signature)


def random_word(length: int) -> str:
    """Return a word of random letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def digest_of(secret: str) -> str:
    """Return what Redis has of a secret: 128 bits, which is as hard to guess as the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]
