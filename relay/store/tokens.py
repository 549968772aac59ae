"""The verbs about tokens."""

import hmac
from collections.abc import Sequence

from relay.errors import Error, Problem
from relay.names import new_id
from relay.store.commands import Commands, ms, pairs
from relay.store.records import UNLIMITED, Grant, transfers_in
from relay.store.timing import REVOKED_TTL


class Tokens:
    """Make, read and revoke tokens."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._keys = commands.keys

    async def make(self, *, token: str, digest: str = "", grant: Grant = UNLIMITED) -> bool:
        """Make a token with its whole life ahead, given the digest of its secret. Return False if its id is taken."""
        life = self._commands.settings.token_life
        limits = (grant.owner, grant.names, grant.bytes, grant.upload, grant.life)
        return bool(await self._commands.run("mint", [self._keys.token(token)], [digest, ms(life), *limits]))

    async def digest(self, *, token: str) -> str | None:
        """Return the digest of a token's secret, or None if the token is gone."""
        (digest,) = await self._commands.ask(("HGET", self._keys.token(token), "digest"))
        return None if digest is None else digest.decode()

    async def read(self, *, token: str, proof: str = "") -> tuple[float, dict[str, str]] | None:
        """Return the seconds that a token has left, and its fields. This is not a use of it.

        Return None if it is gone, or if a `proof` is given that is not the digest of its secret.
        """
        key = self._keys.token(token)
        left, flat = await self._commands.ask(("PTTL", key), ("HGETALL", key))
        fields = pairs(flat)
        is_proven = not proof or hmac.compare_digest(proof, fields.get("digest", ""))
        return (left / 1000, fields) if left >= 0 and is_proven else None

    async def recount(self, *, token: str, read: int, counted: int) -> None:
        """Correct the bytes that a token has reserved to `counted`, unless they are not `read` any more."""
        await self._commands.run("recount", [self._keys.token(token)], [read, counted])

    async def revoke(self, *, token: str, proof: str = "") -> list[tuple[str, str]] | None:
        """Delete a token. Return the names and ids of its transfers, or None if it was gone already.

        Return None, too, if a `proof` is given that is not the digest of its secret.
        """
        keys = [self._keys.token(token), self._keys.revoked(token)]
        fields = pairs(await self._commands.run("revoke", keys, [new_id(), ms(REVOKED_TTL), proof]))
        return transfers_in(fields) if fields else None

    async def was_revoked(self, *, token: str) -> bool:
        """Return whether a token was revoked within the last minute."""
        return await self._commands.ask(("EXISTS", self._keys.revoked(token))) == [1]


def need_token(reply: Sequence[bytes]) -> None:
    """Raise Problem(UNKNOWN_TOKEN) if a script found no token."""
    if reply[0] == b"no_token":
        raise Problem(Error.UNKNOWN_TOKEN)


def need_room(reply: Sequence[bytes]) -> None:
    """Raise Problem(CROWDED) if a script found no room for another name in the token's hash."""
    if reply[0] == b"crowded":
        raise Problem(Error.CROWDED)


def need_bytes(reply: Sequence[bytes]) -> None:
    """Raise Problem(SPENT) if a script found fewer bytes than an upload needs among those that the token may have."""
    if reply[0] == b"spent":
        raise Problem(Error.SPENT, most=int(reply[1]))
