"""What a failure of Redis means: one row for each error word, with what the operator can do. Pure.

An error reply begins with a word, such as NOREPLICAS. Redis hides it in some places: Redis 6.2 puts the error of a
command within a script into the middle of a sentence, and EXEC puts that of a queued command at the end of one.
Failures that are not replies (a refused connection, a bad certificate) have a word of ours, found by their text.
"""

import re
from enum import Enum
from typing import NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: All that redis-py and asyncio raise if Redis fails.
RAISED = (TimeoutError, OSError, RedisError, RedisClusterException)


class Kind(Enum):
    """What to do about a failure."""

    #: Redis may carry out the same command a moment later: repeat it, as long as the caller's patience lasts.
    PASSING = "passing"
    #: Redis has no memory for it now: the same, but clients are told so.
    FULL = "full"
    #: A programmer or the operator has to mend it: repeating is useless.
    FINAL = "final"


class Failure(NamedTuple):
    """One row of the table."""

    word: str
    kind: Kind
    #: What the operator can do.
    advice: str
    #: Whether another server may have the key by now: the connection is closed, and the server looked up again.
    elsewhere: bool = False


_SOON = "it passes by itself"
_FAILOVER = "it passes when the failover is over"
_RIGHTS = "give the user of RELAY_REDIS_URL the rights in deploy/README.md, section Security"
_LOGIN = "correct the user and the password in RELAY_REDIS_URL"
_BUG = "please report this as a bug of relay"
_SILENT = "is Redis overloaded or stopped, the network broken, or rediss:// used for a port without TLS?"
_CONNECT = "is Redis up, and are host and port in RELAY_REDIS_URL right?"

#: Every error word of Redis and Valkey that a node can meet, and the words of ours. An unknown word is like ERR.
FAILURES = (
    Failure("ASK", Kind.PASSING, _SOON, elsewhere=True),
    Failure("BUSY", Kind.PASSING, "somebody's script or module keeps Redis busy: see SLOWLOG, or use SCRIPT KILL"),
    Failure("CLUSTERDOWN", Kind.PASSING, f"part of the cluster is down: {_FAILOVER}", elsewhere=True),
    Failure("LOADING", Kind.PASSING, "Redis loads its data after a start: it passes when that is done", elsewhere=True),
    Failure("MASTERDOWN", Kind.PASSING, f"a replica without its master: {_FAILOVER}", elsewhere=True),
    Failure("MISCONF", Kind.PASSING, "Redis cannot save to its disk: give it room there, or switch off saving"),
    Failure("MOVED", Kind.PASSING, "if it stays, use redis+cluster:// in RELAY_REDIS_URL", elsewhere=True),
    Failure("NOREPLICAS", Kind.PASSING, "too few replicas are connected: start them, or lower min-replicas-to-write"),
    Failure("READONLY", Kind.PASSING, "this is a replica: point RELAY_REDIS_URL to its master", elsewhere=True),
    Failure("TRYAGAIN", Kind.PASSING, "a slot is being moved: " + _SOON, elsewhere=True),
    Failure("UNBLOCKED", Kind.PASSING, f"Redis ended a wait: {_SOON}", elsewhere=True),
    Failure("OOM", Kind.FULL, "raise maxmemory, or lower RELAY_WINDOW; downloads free memory as they proceed"),
    Failure("BUSYGROUP", Kind.FINAL, _BUG),
    Failure("CROSSSLOT", Kind.FINAL, _BUG),
    Failure("DENIED", Kind.FINAL, "Redis is in protected mode: give it a password, or set protected-mode no"),
    Failure("ERR", Kind.FINAL, "if it stays, please report it"),
    Failure("EXECABORT", Kind.FINAL, _BUG),
    Failure("NOAUTH", Kind.FINAL, "this Redis wants a password: put it into RELAY_REDIS_URL"),
    Failure("NOGROUP", Kind.FINAL, _BUG),
    Failure("NOPERM", Kind.FINAL, _RIGHTS),
    Failure("NOPROTO", Kind.FINAL, "use Redis 6.2 or newer, or Valkey"),
    Failure("NOSCRIPT", Kind.PASSING, _SOON),
    Failure("NOTBUSY", Kind.FINAL, _BUG),
    Failure("UNKILLABLE", Kind.FINAL, _BUG),
    Failure("WRONGPASS", Kind.FINAL, _LOGIN),
    Failure("WRONGTYPE", Kind.FINAL, "something else writes to relay's keys: give it another Redis, or RELAY_PREFIX"),
    # Words of ours.
    Failure("connection", Kind.PASSING, _CONNECT, elsewhere=True),
    Failure("clients", Kind.PASSING, "Redis has its maximum of connections: raise maxclients"),
    Failure("name", Kind.PASSING, "correct the host's name in RELAY_REDIS_URL, or its entry in the DNS"),
    Failure("not a cluster", Kind.PASSING, "this Redis is no cluster: use redis:// in RELAY_REDIS_URL"),
    Failure("sentinel", Kind.PASSING, "no sentinel knows a master of that name: are the hosts and the service right?"),
    Failure("silence", Kind.PASSING, _SILENT),
    Failure("closed", Kind.PASSING, "Redis closed the connection: if it wants TLS, use rediss://", elsewhere=True),
    Failure("tls", Kind.PASSING, "TLS failed: rediss:// is for a port with TLS, ssl_ca_certs= for a private authority"),
)
_BY_WORD = {row.word: row for row in FAILURES}

#: Failures whose first word does not say it. The first pattern that is found counts; it may capture the word.
_TEXTS = (
    # "@user_script: 1: -OOM command not allowed" and "@user_script:1: WRONGTYPE Operation against": Redis 6.2.
    (re.compile(r"@user_script: ?\d+: -?([A-Z]{3,})\b"), ""),
    (re.compile(r"[Tt]ransaction discarded because of: -?([A-Z]{3,})\b"), ""),
    (re.compile(r"user executing the script can't|ACL failure in script"), "NOPERM"),
    (re.compile(r"non local key in a cluster node"), "MOVED"),
    (re.compile(r"max number of clients"), "clients"),
    (re.compile(r"(?i)invalid password|AUTH.*without any password configured"), "WRONGPASS"),
    (re.compile(r"(?i)cluster mode is not enabled|cluster support disabled"), "not a cluster"),
    (re.compile(r"No master found for"), "sentinel"),
    (re.compile(r"SSL|(?i:certificate)"), "tls"),
    (re.compile(r"Name or service not known|(?i:name resolution)|No address associated|nodename nor"), "name"),
    (re.compile(r"(?i)connection closed|closed the connection|Connection reset|ConnectionResetError"), "closed"),
)


def failure_of(error: BaseException) -> Failure:
    """Return the row of what redis-py or asyncio raised, or of an error reply."""
    text = str(error)
    first = getattr(error, "status_code", None) or text.partition(" ")[0]
    found = _BY_WORD.get(first) if first.isupper() else None
    if found is not None and found.word not in ("ERR", "EXECABORT"):
        return found
    for pattern, word in _TEXTS:
        if (match := pattern.search(text)) and (hidden := _BY_WORD.get(word or match[1])):
            return hidden
    if found is None and isinstance(error, TimeoutError | RedisTimeoutError):
        return _BY_WORD["silence"]
    if found is None and isinstance(error, RedisConnectionError | RedisClusterException | OSError):
        return _BY_WORD["connection"]
    return found or _BY_WORD["ERR"]


def describe(error: BaseException) -> str:
    """Return the error's words and what to do, in one line. It has no password: errors do not repeat one."""
    row = failure_of(error)
    words = " ".join(str(error).removeprefix("ERR ").split()) or type(error).__name__
    if row.word.isupper() and row.word not in words:  # redis-py has cut it off
        words = f"{row.word} {words}"
    return f"{words[:300].rstrip('.')}: {row.advice}"
