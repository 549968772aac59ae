"""The store: every verb by which relay uses Redis, grouped by what it is about."""

from typing import Self

from relay.metrics import Metrics
from relay.settings import Settings
from relay.store.commands import Commands
from relay.store.nodes import Nodes
from relay.store.rates import Rates
from relay.store.redis_py import RedisPy
from relay.store.servers import Servers
from relay.store.tokens import Tokens
from relay.store.transfers import Transfers


class Store:
    """The verbs, grouped by what they are about. A process has one.

    Make it with `connect`, and close it with `aclose`.
    """

    def __init__(self, settings: Settings, metrics: Metrics, redis_py: RedisPy) -> None:
        self.commands = Commands(settings, metrics, redis_py)
        self.keys = self.commands.keys
        self.tokens = Tokens(self.commands)
        self.transfers = Transfers(self.commands)
        self.nodes = Nodes(self.commands)
        self.rates = Rates(self.commands)
        self.servers = Servers(self.commands)

    @classmethod
    def connect(cls, settings: Settings, metrics: Metrics | None = None) -> Self:
        """Return a store on `settings.redis_url`. It connects at its first command, not here."""
        return cls(settings, metrics or Metrics(), RedisPy.connect(settings))

    async def aclose(self) -> None:
        """Close all connections to Redis."""
        await self.commands.aclose()
