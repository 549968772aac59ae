"""How long keys live in Redis, and how often they are renewed, in seconds."""

from relay.settings import Settings

#: Seconds between two checks that a streaming side makes of its transfer. Each check renews the side's keys.
TOUCH = 5.0
#: Seconds that a stream's keys remain after its transfer has ended, so that the other side can read the outcome.
LINGER = 30.0
#: Seconds that a revocation is remembered: until each side of the token's transfers has noticed it, even if a wake-up
#: was lost.
REVOKED_TTL = 60.0
#: Seconds that the uploader's keys live after a download has joined: until the uploader's side notices, even if its
#: wake-up was lost.
JOINED_TTL = 60.0
#: Seconds that a claim outlives the upload's wait, so that the claim never expires before the wait ends.
CLAIM_MARGIN = 60.0


def lease(settings: Settings) -> float:
    """Return the seconds that a side's stream lives after a renewal: two checks, and a failure of Redis."""
    return 2 * TOUCH + settings.transfer_patience
