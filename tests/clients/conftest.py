"""The ways from a client to a node, and uploads that a test can break off."""

import re
import secrets
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.certificate import make_certificate
from tests.support.cluster import Cluster, NodeProcess, alone
from tests.support.haproxy import HAProxy
from tests.support.nginx import Nginx
from tests.support.wait import wait_until

HALF = b"x" * 100_000


@dataclass
class Route:
    """A node, and the URL by which clients reach it."""

    node: NodeProcess
    url: str
    certificate: str

    def token(self) -> str:
        return httpx.post(self.node.url + "/token", verify=False).text.strip()

    def delivered(self) -> int:
        """Return how many bytes the node has handed over to downloaders since it started."""
        metrics = httpx.get(self.node.url + "/metrics", verify=False).text
        found = re.search(r"^relay_delivered_bytes_total (\S+)$", metrics, re.MULTILINE)
        assert found
        return int(float(found[1]))

    def wait_delivered(self, halves: int, *, since: int) -> None:
        """Wait until so many first halves have been handed over, since it was `since` bytes."""
        wait_until(lambda: self.delivered() - since >= halves * len(HALF), "the first halves", timeout=40)


class Upload:
    """An upload of two halves, the first of which is sent at once. It goes straight to the node."""

    def __init__(self, route: Route, token: str, *, chunked: bool) -> None:
        self.path = f"/{token}/{secrets.token_hex(4)}"
        self._chunked = chunked
        self._socket = socket.create_connection(("127.0.0.1", route.node.port), timeout=30)
        if route.node.url.startswith("https:"):
            context = ssl.create_default_context(cafile=route.certificate)
            self._socket = context.wrap_socket(self._socket, server_hostname="127.0.0.1")
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {2 * len(HALF)}"
        self._socket.sendall(f"PUT {self.path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        self._send(HALF)

    def finish(self) -> None:
        """Send the rest, and check that it arrives."""
        self._send(HALF)
        if self._chunked:
            self._socket.sendall(b"0\r\n\r\n")
        response = self._socket.recv(65536)
        while response.endswith(b"\r\n\r\n") and response.startswith(b"HTTP/1.1 100 "):
            response = self._socket.recv(65536)  # the node has made sure that this client is there
        assert b"HTTP/1.1 200 " in response, response
        self._socket.close()

    def break_off(self) -> None:
        """Leave in the middle."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def node() -> Iterator[Cluster]:
    with alone("plain") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def secure_node(certificate: tuple[str, str]) -> Iterator[Cluster]:
    with alone("secure", ssl_certfile=certificate[0], ssl_keyfile=certificate[1]) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def haproxy(node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    with HAProxy(node.nodes, tmp_path_factory.mktemp("haproxy")) as balancer:
        yield balancer


@pytest.fixture(scope="session")
def nginx(node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(node.nodes, tmp_path_factory.mktemp("nginx")) as balancer:
        yield balancer


@pytest.fixture(params=["directly", "TLS", "HAProxy", "nginx"])
def route(request: pytest.FixtureRequest, certificate: tuple[str, str]) -> Route:
    if request.param == "TLS":
        node = request.getfixturevalue("secure_node")[0]
        return Route(node, node.url, certificate[0])
    node = request.getfixturevalue("node")[0]
    balancers = {"HAProxy": "haproxy", "nginx": "nginx"}
    url = request.getfixturevalue(balancers[request.param]).url if request.param in balancers else node.url
    return Route(node, url, certificate[0])


@pytest.fixture
def is_proxied(request: pytest.FixtureRequest, route: Route) -> bool:
    return route.url != route.node.url
