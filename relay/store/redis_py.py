"""The one module that touches what is private or undocumented in redis-py and fakeredis.

redis-py reads RELAY_REDIS_URL and makes the connections, because it knows TLS, users, Sentinel and Cluster. `RedisPy`
holds its object, a `Server` tells where a key is, and a `Link` is a connection whose socket we take over.

`tests/contract/test_redis_py.py` names everything that is relied on here, and what breaks without it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, cast
from urllib.parse import SplitResult, parse_qsl, unquote

import fakeredis
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.connection import Connection as TCPConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from relay.redis_urls import split_url
from relay.settings import Settings

#: Maximum connections of redis-py's own pool, if the pool raises when all are in use instead of waiting for one.
_UNBOUNDED = 2**31
#: Seconds that a single command may take before its connection is closed and the command is repeated on another.
COMMAND_TIMEOUT = 2.0
#: Seconds for one sentinel to say who the master is. Of three, two may hang, and a new request still gets through.
_SENTINEL_TIMEOUT = 0.4
#: Seconds for one node of a cluster to say which node has which slots, and for whatever redis-py asks by itself.
_CLUSTER_TIMEOUT = 1.0


def _transport_of(connection: AbstractConnection) -> asyncio.Transport | None:
    """Return what carries a connection. fakeredis has none, or from 2.41 on one that has no socket."""
    transport: asyncio.Transport | None = getattr(connection._writer, "transport", None)
    return transport if transport and transport.get_extra_info("socket") else None


class Link:
    """One connection that redis-py has opened: encrypted if need be, logged in, and with its name set."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        #: Kept because it would close the transport when it is garbage-collected.
        self._writer = connection._writer
        #: The host and port that it leads to; None for a socket or fakeredis.
        self.address: object = (connection.host, connection.port) if isinstance(connection, TCPConnection) else None
        #: What the connection is sent through; None if it leads to fakeredis, which has no socket.
        self.transport = _transport_of(connection)

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.BufferedProtocol) -> None:
        """Give all that arrives from now on to `protocol`. redis-py then behaves as if it were not connected."""
        self._connection._reader = self._connection._writer = None
        transport.pause_reading()  # without this uvloop keeps reading into the buffers of the old protocol
        transport.set_protocol(protocol)
        transport.resume_reading()

    async def exchange(self, packed: bytes, count: int) -> list[Any]:
        """Send packed commands through redis-py and return their replies. A reply that is an error is not raised."""
        await self._connection.send_packed_command([packed])
        return [await self._reply() for _ in range(count)]

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error


class Server(NamedTuple):
    """A Redis server, and how redis-py connects to it."""

    #: Unique among the servers of one RELAY_REDIS_URL.
    name: str
    connection_class: type[AbstractConnection]
    options: Mapping[str, Any]

    async def connect(self) -> Link:
        """Open a connection. Raise what redis-py raises."""
        connection = self.connection_class(**{**self.options, "protocol": 2})  # `relay.store.resp` parses RESP2
        await connection.connect()  # type: ignore[no-untyped-call]
        return Link(connection)


class RedisPy:
    """redis-py's object for one RELAY_REDIS_URL. Make it with `connect` or `embedded`, and close it with `aclose`."""

    def __init__(self, redis: Redis | RedisCluster, sentinels: Sequence[Redis] = ()) -> None:
        #: For what is asked rarely: pipelines over many keys, and scans.
        self.redis = redis
        #: The objects through which redis-py asks the sentinels.
        self._sentinels = sentinels
        # Asked once, because it is slow: these classes have protocols among their bases.
        self._is_cluster = isinstance(redis, RedisCluster)
        #: The one server that has all keys; None of a Redis Cluster.
        self.only = None if isinstance(redis, RedisCluster) else _server_of(redis)

    @classmethod
    def embedded(cls, server: fakeredis.FakeServer) -> Self:
        """Return one for a Redis inside this process, which others may use as well."""
        return cls(fakeredis.FakeAsyncRedis(server=server))

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Return one for `settings.redis_url`. It connects at its first command, not here.

        redis-py's own retries and timeouts are off: `Commands.repeat` repeats, and knows for how long. Maintenance
        notifications are off because with them redis-py 8.1.0 hands out dead connections (its issue 4252).
        """
        if settings.is_alone:
            return cls.embedded(fakeredis.FakeServer())
        url = split_url(settings.redis_url)
        scheme, _, form = url.scheme.partition("+")
        options: dict[str, Any] = {
            "socket_timeout": None,
            "socket_connect_timeout": COMMAND_TIMEOUT,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
            "client_name": settings.node,
        }
        if scheme != "unix":
            options["socket_keepalive"] = True
        if form == "cluster":
            return cls(_cluster(options | {"socket_timeout": _CLUSTER_TIMEOUT} | _from_url(url)))
        options["retry"] = Retry(NoBackoff(), 0)
        if form == "sentinel":
            return cls(*_sentinel(options | _from_url(url), url))
        pool = BlockingConnectionPool.from_url(
            settings.redis_url, max_connections=settings.redis_commands, timeout=COMMAND_TIMEOUT, **options
        )
        return cls(Redis.from_pool(pool))

    @property
    def is_embedded(self) -> bool:
        """Whether this is a Redis inside this process."""
        return isinstance(self.redis, fakeredis.FakeAsyncRedis)

    async def info(self) -> list[dict[str, Any]]:
        """Return INFO of each master. Raise what redis-py raises."""
        if not self._is_cluster:
            return [await cast(Redis, self.redis).info()]
        found = await cast(Any, self.redis).info(target_nodes=RedisCluster.PRIMARIES)
        return [found] if "redis_version" in found else list(found.values())

    async def locate(self, key: str) -> Server:
        """Return the server that has the key, as far as redis-py knows. Raise what redis-py raises."""
        if self.only is not None:
            return self.only
        cluster = cast(RedisCluster, self.redis)
        await cluster.initialize()
        node = cast(Any, cluster.get_node_from_key(key))
        return Server(node.name, node.connection_class, node.connection_kwargs)

    async def find_again(self, doubted: str) -> None:
        """Let redis-py find out which servers of a Redis Cluster have which keys now. Raise what redis-py raises.

        `doubted`: the server whose reply or silence gave reason to ask. It is asked last, because it may hang.
        """
        if self._is_cluster:
            await cast(RedisCluster, self.redis).nodes_manager.initialize(last_failed_node_name=doubted)

    async def close_idle(self) -> None:
        """Close the idle connections in redis-py's own pool.

        redis-py notices only when it uses a connection that Redis has closed it. Until then its file would stay open.
        """
        if not self._is_cluster:
            await cast(Redis, self.redis).connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Close redis-py's own connections. Those that were handed over are not among them."""
        for redis in (self.redis, *self._sentinels):
            await redis.aclose()
        if self._is_cluster:  # redis-py leaves them open if it has not found the cluster
            await cast(RedisCluster, self.redis).nodes_manager.aclose("startup_nodes")


def _server_of(redis: Redis) -> Server:
    """Return the server that redis-py's object asks. Through Sentinel, it is found when it is connected to."""
    pool = redis.connection_pool
    return Server("", pool.connection_class, pool.connection_kwargs)


def _cluster(options: dict[str, Any]) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in options.pop("hosts")]
    return RedisCluster(startup_nodes=nodes, max_connections=_UNBOUNDED, **options)


def _sentinel(options: dict[str, Any], url: SplitResult) -> tuple[Redis, Sequence[Redis]]:
    service, _, database = url.path.strip("/").partition("/")
    hosts, ssl = options.pop("hosts"), options.get("ssl", False)
    # redis-py asks one sentinel after the other, and would by itself ask one that is gone ten times first.
    watch = {"socket_timeout": _SENTINEL_TIMEOUT, "socket_connect_timeout": _SENTINEL_TIMEOUT, "ssl": ssl}
    watch |= {"retry": options["retry"]}
    options["max_connections"] = _UNBOUNDED
    sentinel: Any = Sentinel(hosts, sentinel_kwargs=watch, db=int(database or 0), **options)  # type: ignore[no-untyped-call]
    return sentinel.master_for(service or "mymaster"), sentinel.sentinels


def _from_url(url: SplitResult) -> dict[str, Any]:
    """Return redis-py's options for a URL that names several hosts, which redis-py cannot read by itself."""
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
    """Split HOST, HOST:PORT or [IPv6]:PORT. The settings accept nothing else."""
    host, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "6379")
    return host.strip("[]"), int(port)
