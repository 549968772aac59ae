"""Clients that leave in every manner, at every moment, over TCP and over TLS: no traceback, and nothing stays behind.

RELAY_DEPARTURES sets how many there are of each scene.
"""

import contextlib
import os
import random
import secrets
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Self

import httpx
import psutil
import pytest

from tests.support.certificate import make_certificate
from tests.support.cluster import NodeProcess, alone, assert_no_traceback
from tests.support.wait import wait_until

COUNT = int(os.environ.get("RELAY_DEPARTURES", "40"))
#: Clients at a time, and downloads that are cut off together: enough of them that one leaves at the wrong moment.
AT_ONCE, CUT_OFF = 20, 40
#: Maximum seconds that a client stays in the middle of something.
LINGER = 0.3
KIB = 1024


class Client:
    """A client that does TLS by hand, if at all, so that it can leave in the middle of a record."""

    def __init__(self, node: NodeProcess, *, handshake: bool = True) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)  # so that little fits on the way
        self.socket.settimeout(10)
        self._address = ("127.0.0.1", node.port)
        self._handshake = handshake
        self.is_tls = node.url.startswith("https:")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self.socket.close)
            self.socket.connect(self._address)
            if self.is_tls and self._handshake:
                self._do(self._tls.do_handshake)
            stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def _do(self, step: Callable[[], object]) -> object:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._out.read())
                piece = self.socket.recv(64 * KIB)
                self._in.write(piece) if piece else self._in.write_eof()
            finally:
                self.socket.sendall(self._out.read())

    def hello(self) -> bytes:
        """Return the first bytes of a handshake."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._out.read()

    def sealed(self, data: bytes) -> bytes:
        """Return the data as it is sent."""
        if not self.is_tls:
            return data
        self._tls.write(data)
        return self._out.read()

    def send(self, data: bytes) -> None:
        self.socket.sendall(self.sealed(data))

    def read(self) -> bytes:
        """Return the next bytes, or none at the end."""
        if not self.is_tls:
            return self.socket.recv(64 * KIB)
        with contextlib.suppress(ssl.SSLZeroReturnError, ssl.SSLEOFError):
            found = self._do(lambda: self._tls.read(64 * KIB))
            assert isinstance(found, bytes)
            return found
        return b""

    def read_to(self, mark: bytes) -> None:
        """Read until the mark has come, or the end."""
        got = b""
        while mark not in got and (piece := self.read()):
            got += piece

    # -- manners of leaving --------------------------------------------------------------------------------

    def fin(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        time.sleep(random.uniform(0, LINGER))
        self.socket.close()

    def close_notify(self) -> None:
        """End TLS, and TCP later."""
        if self.is_tls:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self.socket.sendall(self._out.read())
            time.sleep(random.uniform(0, LINGER))
        self.reset() if random.random() < 0.5 else self.fin()

    def garbage(self) -> None:
        """Send bytes that are no TLS record and no HTTP."""
        self.socket.sendall(random.randbytes(random.randint(1, 2000)))
        time.sleep(random.uniform(0, LINGER))
        self.socket.close()

    def handshake_again(self) -> None:
        """Send a record of a handshake, as if to renegotiate, that is not encrypted."""
        self.socket.sendall(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00")
        self.socket.close()

    def leave(self) -> None:
        manners = (self.fin, self.reset, self.half_close, self.close_notify, self.garbage, self.handshake_again)
        random.choice(manners)()


# -- scenes ------------------------------------------------------------------------------------------------


def handshakes(node: NodeProcess, token: str) -> None:
    """Leave in the middle of the handshake, or of what should be one."""
    with Client(node, handshake=False) as client:
        hello = client.hello()
        client.socket.sendall(hello[: random.randint(0, len(hello))])
        client.leave()


def requests(node: NodeProcess, token: str) -> None:
    """Leave at a random byte of requests that are sent ahead: an upload, with or without a faulty body, and others."""
    path = f"/{token}/{secrets.token_hex(4)}"
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\n"
    texts = [
        head + "Content-Length: 100000\r\n\r\n",
        head + "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n0123456789",
        head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno chunk\r\n",
        f"GET {path}?wait=1 HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 5,
        "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
    ]
    text = (random.choice(texts) + random.choice(texts)).encode() + bytes(random.choice((0, 50_000)))
    with Client(node) as client:
        data = client.sealed(text)
        client.socket.sendall(data[: random.randint(1, len(data))])
        time.sleep(random.choice((0, random.uniform(0, LINGER))))
        client.leave()


def transfers(node: NodeProcess, token: str) -> None:
    """Transfer 0 to 100,000 bytes. One of the two clients leaves in the middle, or as soon as it is over."""
    path, size = f"/{token}/{secrets.token_hex(4)}", random.choice((0, 1, 5000, 100_000))
    sent = random.choice((size, random.randint(0, size)))
    # A request behind it keeps the server from reading the client, and from seeing that it closes.
    behind = random.choice(("", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
    with Client(node) as up, Client(node) as down:
        up.send(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(sent))
        down.send(f"GET {path}?wait=20 HTTP/1.1\r\nHost: x\r\n\r\n{behind}".encode())
        time.sleep(random.choice((0, random.uniform(0, LINGER))))
        if random.random() < 0.7:
            down.read_to(random.choice((b"\r\n\r\n", b"\0" * sent)))
        for client in random.sample((up, down), 2):
            client.leave()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=["TCP", "TLS"])
def node(request: pytest.FixtureRequest, certificate: tuple[str, str]) -> Iterator[NodeProcess]:
    tls = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]} if request.param == "TLS" else {}
    with alone("left", failure_rate="", header_timeout=2, **tls) as cluster:
        yield cluster[0]


@pytest.fixture
def api(node: NodeProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, verify=False, timeout=30, headers={"connection": "close"}) as client:
        yield client


@pytest.fixture(autouse=True)
def harmless(node: NodeProcess, api: httpx.Client) -> Iterator[None]:
    """Check after each test that the node has neither logged a traceback nor kept a client."""
    yield
    wait_until(lambda: not connections(node), "the clients to be gone", timeout=40)
    assert api.get("/readyz").is_success
    assert_no_traceback(node.log())


def connections(node: NodeProcess) -> int:
    found = psutil.Process(node.process.pid).net_connections("tcp")
    return sum(each.status != psutil.CONN_LISTEN for each in found)


@pytest.mark.parametrize("scene", [handshakes, requests, transfers])
def test_clients_leave_in_the_middle(
    node: NodeProcess, api: httpx.Client, scene: Callable[[NodeProcess, str], None]
) -> None:
    def play(token: str) -> None:
        with contextlib.suppress(OSError):  # the node has closed first
            scene(node, token)

    tokens = [api.post("/token").text.strip() for _ in range(4)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(play, tokens * (COUNT // len(tokens))))


def test_downloads_leave_while_they_are_cut_off(node: NodeProcess, api: httpx.Client) -> None:
    """The node waits up to a second until a client has what it was sent, and looks every 10 ms."""
    token = api.post("/token").text.strip()

    def play(_: int) -> None:
        path = f"/{token}/{secrets.token_hex(4)}"
        with contextlib.suppress(OSError), Client(node) as up, Client(node) as down:
            up.send(f"PUT {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            down.send(f"GET {path}?wait=20 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            up.socket.settimeout(0.3)
            with contextlib.suppress(TimeoutError):  # nothing is read of the download
                while True:
                    up.send(b"%x\r\n%b\r\n" % (64 * KIB, bytes(64 * KIB)))
            if everybody.wait() == 0:
                assert api.delete(f"/{token}").is_success
            time.sleep(random.uniform(0, LINGER))
            down.leave()

    everybody = Barrier(CUT_OFF, timeout=30)
    with ThreadPoolExecutor(CUT_OFF) as pool:
        list(pool.map(play, range(CUT_OFF)))
