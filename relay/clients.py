"""Redis clients for each form of RELAY_REDIS_URL, and which of their errors pass."""

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import fakeredis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from relay.settings import Settings

Client = Redis | RedisCluster

#: Redis may answer the same command a moment later: a cut connection, a restart, a failover, no memory.
PASSING = (
    RedisConnectionError,
    RedisTimeoutError,
    TimeoutError,
    OSError,
    ReadOnlyError,
    MasterDownError,
    ClusterDownError,
    RedisClusterException,
    TryAgainError,
    OutOfMemoryError,
)

#: Seconds a single command may take before its connection is given up and the command repeated on another.
COMMAND_TIMEOUT = 2.0


def connect(settings: Settings) -> tuple[Client, Client]:
    """A client for commands, and one for reads that block: its connections are as many as there are readers.

    Retries are off in both: `Store._call` repeats, and knows how long.  Maintenance notifications are off
    because redis-py 8.1.0 hands out dead connections with them (its issue 4252).
    """
    if not settings.redis_url:
        server = fakeredis.FakeServer()
        return fakeredis.FakeAsyncRedis(server=server), fakeredis.FakeAsyncRedis(server=server)
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,  # asyncio.timeout in `Store._call` does it, and knows what blocks
        "socket_connect_timeout": COMMAND_TIMEOUT,
        "socket_keepalive": True,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "client_name": settings.node,
    }
    url = urlsplit(settings.redis_url)
    kind, _, form = url.scheme.partition("+")
    if not form:
        pool = BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=settings.redis_connections,
            timeout=COMMAND_TIMEOUT,
            **options,
        )
        return Redis.from_pool(pool), Redis.from_pool(ConnectionPool.from_url(settings.redis_url, **options))
    options |= dict(parse_qsl(url.query))
    options |= {key: unquote(value) for key in ("username", "password") if (value := getattr(url, key))}
    if kind == "rediss":
        options["ssl"] = True
    hosts = [_host_port(host) for host in url.netloc.rpartition("@")[2].split(",")]
    if form == "sentinel":
        service, _, database = url.path.strip("/").partition("/")
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            hosts, sentinel_kwargs={"socket_timeout": COMMAND_TIMEOUT}, db=int(database or 0), **options
        )
        return sentinel.master_for(service or "mymaster"), sentinel.master_for(service or "mymaster")
    del options["retry"]  # a cluster client counts its own retries
    host, port = hosts[0]
    options["max_connections"] = settings.redis_connections
    blocking = options | {"max_connections": 2**31}
    return RedisCluster(host, port, **options), RedisCluster(host, port, **blocking)


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text else (text, "", "6379")
    return host, int(port)
