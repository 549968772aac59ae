"""Badly behaved HTTP clients on plain sockets: some are slow, and some disconnect in the middle."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.crowd import request

#: Maximum size of one read or write, in bytes, and the pause of a slow client between two of them, in seconds.
PIECE, PAUSE = 64 * 1024, 0.05


@dataclass(frozen=True)
class Manner:
    """How a client behaves: whether it is slow, and after how many bytes it disconnects, if it does."""

    is_slow: bool = False
    leaves_after: int | None = None

    @classmethod
    def of(cls, dice: random.Random, size: int) -> "Manner":
        leaves = dice.random() < 0.2 and size > 0
        return cls(is_slow=dice.random() < 0.2, leaves_after=dice.randrange(size) if leaves else None)


@dataclass
class Told:
    """What a client knows when it ends. `status` is None if it received no response."""

    status: int | None = None
    body: bytearray = field(default_factory=bytearray)
    #: Whether the client received the whole response, by its Content-Length or its last chunk.
    is_whole: bool = False
    has_left: bool = False

    async def read(
        self, connection: "_Connection", status: int, headers: dict[str, str], manner: Manner = Manner()
    ) -> None:
        """Read the body of the response, unless the client leaves before its end."""
        self.status = status
        async for piece in connection.body(headers):
            self.body += piece
            if manner.leaves_after is not None and len(self.body) > manner.leaves_after:
                self.has_left = True
                return
            if manner.is_slow:
                await asyncio.sleep(PAUSE)
        self.is_whole = True


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._ahead = b""

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def read(self, most: int = PIECE) -> bytes:
        """Return up to `most` bytes, or none at the end of the connection."""
        if not self._ahead:
            return await self._loop.sock_recv(self._socket, most)
        data, self._ahead = self._ahead[:most], self._ahead[most:]
        return data

    async def answer(self) -> tuple[int, dict[str, str]]:
        """Return the status and the headers of the final response.

        Skip any further `100 Continue`: the node may send one to probe whether the client still lives.
        """
        while (head := await self.head())[0] == 100:
            pass
        return head

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the headers of the next response. Raise ConnectionError if the connection ends."""
        got = b""
        while b"\r\n\r\n" not in got:
            if not (piece := await self.read()):
                raise ConnectionError
            got += piece
        head, _, self._ahead = got.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def body(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        """Yield the response's body in pieces. Raise ConnectionError if it is cut off."""
        if "content-length" in headers:
            async for piece in self._exactly(int(headers["content-length"])):
                yield piece
            return
        while size := int(await self._line(), 16):
            async for piece in self._exactly(size):
                yield piece
            await self._line()
        await self._line()

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            if not (piece := await self.read(min(size, PIECE))):
                raise ConnectionError
            size -= len(piece)
            yield piece

    async def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            if not (byte := await self.read(1)):
                raise ConnectionError
            line += byte
        return line


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[_Connection]:
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        yield _Connection(sock)


async def put(port: int, path: str, content: bytes, manner: Manner, *, is_chunked: bool) -> Told:
    """Upload the content. Connection errors are not raised: the returned `Told` shows how far the client got."""
    told = Told()
    framing: dict[str, object] = {"Content_Length": len(content)}
    if is_chunked:
        framing = {"Transfer_Encoding": "chunked"}
    with contextlib.suppress(OSError):
        async with _connected(port) as connection:
            await connection.send(request("PUT", path, Expect="100-continue", **framing))
            status, headers = await connection.head()
            if status != 100:
                await told.read(connection, status, headers)
                return told
            sending = asyncio.create_task(_send(connection, content, manner, told, is_chunked=is_chunked))
            answering = asyncio.create_task(connection.answer())
            try:
                await asyncio.wait([sending, answering], return_when=asyncio.FIRST_COMPLETED)
                if told.has_left:
                    answering.cancel()
                else:
                    await told.read(connection, *await answering)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    return told


async def _send(connection: _Connection, content: bytes, manner: Manner, told: Told, *, is_chunked: bool) -> None:
    for start in range(0, len(content), PIECE):
        piece = content[start : start + PIECE]
        if manner.leaves_after is not None and start + len(piece) > manner.leaves_after:
            told.has_left = True
            return
        await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if manner.is_slow:
            await asyncio.sleep(PAUSE)
    if is_chunked:
        await connection.send(b"0\r\n\r\n")


async def get(port: int, path: str, manner: Manner) -> Told:
    """Download the path. Connection errors are not raised: the returned `Told` shows how far the client got."""
    told = Told()
    with contextlib.suppress(OSError):
        async with _connected(port) as connection:
            await connection.send(request("GET", path))
            await told.read(connection, *await connection.head(), manner)
    return told
