"""What an operator's page offers to cancel, and the proof that it did offer that. Pure."""

import hmac
from typing import NamedTuple, Self

_SIGNATURE_LENGTH = 32


class Offer(NamedTuple):
    """One transfer that a page offers to cancel: the id of its token, its percent-encoded name, and its id.

    A browser adds the operator's password to every request to the relay, also to one that another site's page makes it
    send. So the page signs each offer with the operator's secret: other sites cannot know the signature. It is good for
    this transfer only, and nothing is stored for it, so any node can check it.
    """

    token: str
    name: str
    transfer_id: str

    def signed(self, key: str) -> str:
        """Return the offer and its signature in one word."""
        return "/".join((*self, self._signature(key)))

    @classmethod
    def parse(cls, word: str, key: str) -> Self | None:
        """Return the offer in what `signed` returned, or None if it is something else."""
        parts = word.split("/")
        if len(parts) != 4:  # noqa: PLR2004 (the offer, and its signature)
            return None
        offer, signature = cls(*parts[:3]), parts[3]
        return offer if hmac.compare_digest(signature.encode(), offer._signature(key).encode()) else None

    def _signature(self, key: str) -> str:
        said = f"cancel {self.token} {self.name} {self.transfer_id}"
        return hmac.digest(key.encode(), said.encode(), "sha256").hex()[:_SIGNATURE_LENGTH]
