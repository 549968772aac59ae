"""A TCP proxy between a downloader and nodes, which cuts its first connections in the middle of a file."""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import Sequence
from enum import StrEnum

from tests.support.proxy import Ended, Proxy, flush

#: SO_LINGER with which close() sends a reset and throws away what is unsent.
_RESET = struct.pack("ii", 1, 0)


class Cut(StrEnum):
    """How the client's connection ends. In every case but `SILENT` the node's connection is reset."""

    FIN = "FIN"
    RST = "RST"
    SILENT = "silent"  # both connections stay open, and nothing passes any more


class CuttingProxy(Proxy):
    """Forwards each connection to the next of `targets`, which are ports of this machine.

    It cuts the first connections that carry a download, one for each number in `after`: so many bytes pass before.
    """

    def __init__(self, targets: Sequence[int], cut: Cut, after: Sequence[int]) -> None:
        self._targets = itertools.cycle(targets)
        self._how = cut
        self._after = list(after)
        super().__init__(targets[0])

    @property
    def cuts_left(self) -> int:
        """How many connections are still to be cut."""
        return len(self._after)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the next target, with a small buffer: what is in it when a connection is cut is lost."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", next(self._targets)))
        return await asyncio.open_connection(sock=sock)

    async def _forward(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        if replies and self._after:
            await self._forward_until_cut(reader, writer)
        with contextlib.suppress(*(() if replies or self._how is not Cut.SILENT else (Ended, OSError))):
            await super()._forward(number, reader, writer, replies=replies)
        await asyncio.Event().wait()  # so that the node does not hear that the client has left

    async def _forward_until_cut(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._after[0]
        while left and (piece := await reader.read(min(left, 64 * 1024))):
            writer.write(piece)
            await writer.drain()
            left -= len(piece)
        if not left:
            self._after.pop(0)
        await flush(writer)  # so that the kernel sends everything before its FIN
        if not left:
            await self._cut_off(writer)
        raise Ended

    async def _cut_off(self, writer: asyncio.StreamWriter) -> None:
        if self._how is Cut.SILENT:
            await asyncio.Event().wait()
        if self._how is Cut.RST:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
