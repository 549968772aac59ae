"""The HTTP client beneath all requests: httpx, set up so that nothing hangs, and its errors in our words."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpcore
import httpx

from relay import __version__
from relay.client.answers import Refusal
from relay.client.failures import Exit, Failure
from relay.client.naming import shown

_PROXIES = "cannot use the proxy in the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY)"
#: Maximum seconds to connect.
_CONNECT = 15.0
#: Maximum seconds of silence in an answer: longer than a relay holds a response open for an uploader that has to come
#: back (RELAY_RESUME_WAIT, 300 s).
SILENCE = 330.0
#: Maximum bytes that are read at once.
_READ = 256 * 1024
#: Maximum bytes of an answer that is not a file.
_ANSWER_MAX = 64 * 1024
#: What servers answer to what they do not know: not found, no such method, not implemented.
_UNKNOWN = (404, 405, 501)
#: Seconds without an answer of the other machine's kernel after which a silent connection counts as dead.
#: Not all systems know them.
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Unreachable(Exception):
    """No answer came, or only a part of one: the connection could not be made, or broke."""


class Trust(NamedTuple):
    """Which certificates count: those that the system trusts, those in `ca`, or any."""

    ca: Path | None = None
    any: bool = False

    def context(self, *, is_needed: bool = True) -> ssl.SSLContext:
        """Return what TLS needs. Raise Failure."""
        # It takes 40 ms to read the certificates of the system, and they are of no use for an address with http://.
        context = ssl.create_default_context() if is_needed else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            try:
                context.load_verify_locations(cafile=self.ca)
            except OSError as error:
                raise Failure(Exit.USAGE, f"--cacert: cannot use {self.ca}: {error.strerror or error}") from None
        if self.any:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


class Answer(NamedTuple):
    """A whole answer, of which the body may have been cut off after 64 KiB. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300  # noqa: PLR2004

    @property
    def is_strange(self) -> bool:
        """Whether it tells that no relay is there, but another server: all answers of a relay name their node."""
        return self.status in _UNKNOWN and "relay-node" not in self.headers

    @property
    def refusal(self) -> Refusal:
        return Refusal.parse(self.status, self.body)


class Line:
    """The connection of one request, which another thread may cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take what httpcore says of a request. When it has connected, have its kernel notice a dead peer."""
        if event == "connection.connect_tcp.complete":
            connected = info["return_value"].get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                if hasattr(socket, option):
                    connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
            with self._lock:
                self._socket = connected

    @property
    def is_connected(self) -> bool:
        return self._socket is not None

    def cut(self) -> None:
        """Break the connection: whoever waits for it is told at once."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)


class Http:
    """Makes requests. Each has a connection of its own: the next one may find another node of the relay."""

    def __init__(self, trust: Trust | None = None, server: str = "https:") -> None:
        context = (trust or Trust()).context(is_needed=server.startswith("https:"))
        try:
            self._client = httpx.Client(
                verify=context,
                timeout=httpx.Timeout(SILENCE, connect=_CONNECT),
                limits=httpx.Limits(max_keepalive_connections=0),
                follow_redirects=False,  # a relay sends nobody elsewhere
                headers={
                    "user-agent": f"relay/{__version__}",
                    "accept": "application/json",
                    "accept-encoding": "identity",
                    "connection": "close",
                },
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise Failure(Exit.USAGE, f"{_PROXIES}: {shown(str(error))}") from None
        except ImportError:  # of what httpx needs for SOCKS
            raise Failure(Exit.USAGE, f"{_PROXIES}: only http:// and https:// are supported") from None

    def close(self) -> None:
        self._client.close()

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
        line: Line | None = None,
        *,
        silence: float = SILENCE,
    ) -> Answer:
        """Make a request, and return its answer. Raise Unreachable, also after so many seconds of silence."""
        with self.open(method, url, headers, content, line, silence=silence) as response:
            return whole(response)

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
        line: Line | None = None,
        *,
        silence: float = SILENCE,
    ) -> Iterator[httpx.Response]:
        """Make a request, and yield its response, whose body is still to be read. Raise Unreachable."""
        trace = (line or Line()).trace
        # While the relay makes the uploader wait, its socket takes nothing: only the relay's limits end that.
        timeout = httpx.Timeout(silence, connect=min(silence, _CONNECT), write=None)
        try:
            with self._client.stream(
                method, url, headers=headers, content=content, timeout=timeout, extensions={"trace": trace}
            ) as response:
                yield response
        except (httpx.TransportError, httpcore.NetworkError, httpcore.TimeoutException) as error:
            raise Unreachable(_cause(error)) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Failure(Exit.USAGE, f"the address cannot be used: {error}") from error


def whole(response: httpx.Response) -> Answer:
    """Read an answer that is not a file. Raise httpx.TransportError."""
    body = b""
    for piece in response.iter_raw():
        body += piece
        if len(body) >= _ANSWER_MAX:
            break
    return Answer(response.status_code, dict(response.headers.items()), body[:_ANSWER_MAX])


def pieces(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body as it arrives. Raise Unreachable, httpx.TransportError, httpcore.NetworkError.

    If its length is known, only the first piece comes through httpcore, with what it has read beyond the head. The rest
    is read from the connection, in larger pieces and without h11, which takes half of the time.
    """
    through = response.iter_raw()
    length = response.headers.get("content-length")
    if length is None or "transfer-encoding" in response.headers:
        yield from through
        return
    left = int(length)
    if left:
        first = next(through)
        left -= len(first)
        yield first
    stream: httpcore.NetworkStream = response.extensions["network_stream"]
    while left > 0:
        piece = stream.read(min(_READ, left), timeout=SILENCE)
        if not piece:
            raise Unreachable("the connection ended too early")
        left -= len(piece)
        yield piece


def _cause(error: Exception) -> str:
    """Return in some words why there was no answer."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"it did not answer within {_CONNECT:g} s"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refused: {error}"
    if isinstance(error, (httpx.ReadTimeout, httpcore.ReadTimeout)):
        return f"nothing came for {SILENCE:g} s"
    if isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpcore.NetworkError)):
        return "the connection broke"
    return str(error) or type(error).__name__
