"""A forward proxy, as companies have: it takes whole addresses, and CONNECT for HTTPS."""

import asyncio
import contextlib
from urllib.parse import urlsplit

from tests.support.proxy import Ended, Proxy


class ForwardProxy(Proxy):
    """Forwards each connection to where its first request says."""

    def __init__(self) -> None:
        #: The first line of each connection.
        self.asked: list[str] = []
        super().__init__(0)
        self.url = f"http://127.0.0.1:{self.port}"

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        self._names[number] = b""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.partition(b"\r\n")[0].decode())
            method, address = self.asked[-1].split()[:2]
            target = urlsplit(f"//{address}" if method == "CONNECT" else address)
            target_reader, target_writer = await asyncio.open_connection(target.hostname, target.port)
            writers.append(target_writer)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                path = address.removeprefix(f"{target.scheme}://{target.netloc}")
                target_writer.write(head.replace(address.encode(), path.encode(), 1))
            with contextlib.suppress(asyncio.CancelledError):  # by close()
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward(number, reader, target_writer, replies=False))
                    both.create_task(self._forward(number, target_reader, writer, replies=True))
        except* (OSError, Ended, asyncio.IncompleteReadError):
            pass
        finally:
            for each in writers:
                each.transport.abort()
