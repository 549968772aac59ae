"""The lines that say why Redis fails: one for each kind of failure, at most once a minute."""

import logging
import time

from relay.redis_urls import hosts_of
from relay.store.failures import describe, failure_of

log = logging.getLogger("relay.store")

#: Seconds until the same kind of failure is logged again.
_AGAIN = 60.0


class Complaints:
    """Log failures of the Redis of one RELAY_REDIS_URL."""

    def __init__(self, redis_url: str) -> None:
        self._hosts = hosts_of(redis_url)
        #: When each kind was logged last, in monotonic seconds.
        self._logged: dict[str, float] = {}

    def add(self, error: BaseException) -> None:
        """Log a failure, unless its kind was logged within the last minute."""
        word, now = failure_of(error).word, time.monotonic()
        if now - self._logged.get(word, float("-inf")) >= _AGAIN:
            self._logged[word] = now
            log.error("Redis at %s: %s", self._hosts, describe(error))
