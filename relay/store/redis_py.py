"""Redis clients for each form of RELAY_REDIS_URL, and which of their errors pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote

import fakeredis
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
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

from relay.redis_urls import split_url
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

#: Connections of a client whose pool raises at once, and does not wait, when all are in use.
_UNBOUNDED = 2**31
#: Seconds a single command may take before its connection is given up and the command repeated on another.
COMMAND_TIMEOUT = 2.0


class Clients(NamedTuple):
    """`commands` for what is asked rarely, and to make the connections of `wire`."""

    commands: Client
    #: Clients that this one uses: the sentinels'.
    others: Sequence[Client] = ()

    async def drop_idle(self) -> None:
        """Closes the connections that nobody uses just now.

        One that Redis has closed is noticed when it is used again; those that are not would stay open until then.
        """
        if isinstance(self.commands, Redis):
            await self.commands.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        for client in (self.commands, *self.others):
            await client.aclose()


def connect(settings: Settings) -> Clients:
    """Clients for `settings.redis_url`.  They connect at their first command, not here.

    Retries are off: `Store.repeat` repeats, and knows for how long.  So are time-outs, for the same reason.
    Maintenance notifications are off because redis-py 8.1.0 hands out dead connections with them (its
    issue 4252).
    """
    url = split_url(settings.redis_url)
    scheme, _, form = url.scheme.partition("+")
    if not scheme:
        return Clients(fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer()))
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": COMMAND_TIMEOUT,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "client_name": settings.node,
    }
    if scheme != "unix":
        options["socket_keepalive"] = True
    if form == "cluster":
        return _cluster(settings, options | _from_url(url))
    options["retry"] = Retry(NoBackoff(), 0)
    if form == "sentinel":
        return _sentinel(options | _from_url(url), url)
    commands = BlockingConnectionPool.from_url(
        settings.redis_url, max_connections=settings.redis_commands, timeout=COMMAND_TIMEOUT, **options
    )
    return Clients(Redis.from_pool(commands))


def _cluster(settings: Settings, options: dict[str, Any]) -> Clients:
    hosts = options.pop("hosts")
    nodes = [ClusterNode(host, port) for host, port in hosts]
    return Clients(RedisCluster(startup_nodes=nodes, max_connections=_UNBOUNDED, **options))


def _sentinel(options: dict[str, Any], url: SplitResult) -> Clients:
    service, _, database = url.path.strip("/").partition("/")
    hosts, ssl = options.pop("hosts"), options.get("ssl", False)
    watch = {"socket_timeout": COMMAND_TIMEOUT, "ssl": ssl}
    options["max_connections"] = _UNBOUNDED
    sentinel: Any = Sentinel(hosts, sentinel_kwargs=watch, db=int(database or 0), **options)  # type: ignore[no-untyped-call]
    service = service or "mymaster"
    return Clients(sentinel.master_for(service), sentinel.sentinels)


def _from_url(url: SplitResult) -> dict[str, Any]:
    """The parts of a URL that redis-py does not read by itself, because it names several hosts."""
    options: dict[str, Any] = dict(parse_qsl(url.query))
    credentials, _, hosts = url.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    options |= {"username": unquote(username)} if username else {}
    options |= {"password": unquote(password)} if password else {}
    options |= {"ssl": True} if url.scheme.startswith("rediss") else {}
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"] == "true"
    return options | {"hosts": [_host_port(host) for host in hosts.split(",")]}


def _host_port(text: str) -> tuple[str, int]:
    """The settings have seen to it that it is HOST, HOST:PORT or [IPv6]:PORT."""
    host, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "6379")
    return host.strip("[]"), int(port)
