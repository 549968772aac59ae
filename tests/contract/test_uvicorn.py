"""What `relay/server/uvicorn_adapter` relies on in uvicorn, httptools and uvloop although they do not promise it.

If a test here fails after an upgrade, read the sentence beside it: it says what would break. Then mend the adapter.
"""

import ast
import asyncio
import inspect
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httptools
import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import HANDLED_SIGNALS, ServerState

from relay.server import protocol, uvicorn_adapter
from relay.server.uvicorn_adapter.cycle import Cycle
from tests.support.certificate import make_certificate

#: Each attribute that the adapter uses, by its owner, and what breaks without it.
USED: dict[str, dict[str, str]] = {
    "HttpToolsProtocol": {
        "access_logger": "uvicorn would have nowhere to log a request, if it were to.",
        "app": "There would be nobody to answer a request.",
        "app_state": "The protocol would not find the settings, the node's id and the epoll of the lifespan.",
        "client": "The limits for each address would not know whom they count.",
        "connection_made": "Ours replaces it: no connection would be set up.",
        "connection_lost": "uvicorn would not forget the connection, and a shutdown would wait for it.",
        "connections": "A shutdown would not close the connections.",
        "cycle": "Nobody could tell which request a body belongs to, or whether it was answered.",
        "data_received": "Ours replaces it: the client's bytes would go by another way, without our limits.",
        "eof_received": "Ours replaces it: a client that closes TLS would not be noticed.",
        "expect_100_continue": "A client of HTTP/1.0 would get an interim response that it does not know.",
        "flow": "Neither reading nor writing could be paused.",
        "headers": "The headers could not be checked, nor repeated without `Upgrade`; trailers would pass for headers.",
        "logger": "An error that the application raises would not be logged.",
        "loop": "No limit would be set to the wait for the first request.",
        "on_body": "A body would not reach `receive()`.",
        "on_headers_complete": "Ours replaces it: no request would be checked before it is served.",
        "on_message_begin": "The scope would have no `Connection`.",
        "on_message_complete": "A body received directly would never end for `receive()`.",
        "on_response_complete": "No limit would be set to the wait for the next request.",
        "parser": "It could not be replaced after an upgrade, or after a body received directly.",
        "pipeline": "The requests that a client sends ahead could not be limited.",
        "scheme": "uvicorn would put none into the scope.",
        "server": "uvicorn would put no address of its own into the scope.",
        "server_state": "A response that the parser's errors get would have no date.",
        "shutdown": "Ours replaces it: a client that is still sending when the node stops would not get its response.",
        "_start_asgi_task": "No request would be served, or no request that a client has sent ahead.",
        "scope": "The scope would have no `Connection`.",
        "transport": "Nothing could be written, closed or received directly.",
        "url": "A request that offers an upgrade could not be repeated without the offer.",
        "_unset_keepalive_if_required": "Connections would be closed as idle while bytes come in.",
    },
    "RequestResponseCycle": {
        "body": "What the parser has kept of a body would be lost when it is received directly.",
        "chunked_encoding": "The body of a response would be framed in the wrong way.",
        "disconnected": "Requests of a lost connection would be answered as if it were there.",
        "expected_content_length": "A response that is shorter than its Content-Length would pass for a whole one.",
        "flow": "A response would not wait for a slow client, and fill the memory.",
        "keep_alive": "The server would close a TLS connection first, and its client look as if it had left.",
        "message_event": "A request of a lost connection would wait in `receive()` for ever.",
        "on_response": "No request that was sent ahead would be served.",
        "response_complete": "Nobody could tell whether a request was answered.",
        "scope": "Nobody could tell a download from an upload, whose client may be sending still.",
        "send": "Ours replaces it: no response would have its own date, nor let its client go on sending.",
        "transport": "No response could be written.",
        "response_started": "An error would be written into the middle of a download.",
        "waiting_for_100_continue": "It would be written after our side was closed, which is an error.",
    },
    "FlowControl": {
        "drain": "A download would not wait for a slow client, and fill the memory.",
        "pause_reading": "An upload would not wait for its downloader, and fill the memory.",
        "read_paused": "A probe would take a client that is not read for one whose end would be seen.",
        "resume_reading": "An upload would stop for ever when its buffer is full for the first time.",
        "write_paused": "A response would not wait for a slow client, and fill the memory.",
    },
    "HttpRequestParser": {
        "feed_data": "Nothing could be parsed.",
        "get_http_version": "HTTP/2 would not be refused, and HTTP/1.0 be taken for 1.1.",
        "get_method": "CONNECT would not be refused; an offered upgrade could not be declined.",
        "should_keep_alive": "A connection would stay open although its client wants it closed.",
        "set_dangerous_leniencies": "Bytes behind a request with `Connection: close` would abort its response.",
        "should_upgrade": "An upload that offers an upgrade would look whole, and empty.",
    },
    "httptools": {
        "HttpParserError": "Garbage would raise in the event loop, and its client get no answer.",
        "HttpParserUpgrade": "An upload that offers an upgrade would get no body.",
        "HttpRequestParser": "Nothing could be parsed after a body received directly.",
        "parse_url": "The path and the query could not be told apart.",
    },
    "Server": {
        "capture_signals": "Ours replaces it: a second signal would turn the exit status into a failure.",
        "config": "The server could not be set up.",
        "handle_exit": "Ours replaces it: a signal would end the node without a drain.",
        "lifespan": "A client of a crowd would find neither the settings nor the epoll.",
        "server_state": "A client of a crowd would be forgotten at the shutdown.",
        "should_exit": "The node would not stop after its drain.",
        "shutdown": "Clients would be let in while the node stops.",
        "started": "A signal during the start would begin a drain; a failed start would exit with status 0.",
        "startup": "The node would look at all its objects for garbage, again and again.",
    },
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Never called: the tests call `receive` and `send` themselves."""


class Transport:
    """Keeps what is written; nothing is sent."""

    def __init__(self) -> None:
        self.written = b""
        self.writes = 0
        self.is_closed = False

    def get_extra_info(self, name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes) -> None:
        self.written += data
        self.writes += 1

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def connect(kind: type[HttpToolsProtocol] = HttpToolsProtocol) -> tuple[HttpToolsProtocol, Transport]:
    """Return a protocol that has just been connected."""
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    http = kind(config, ServerState(), {"key": "value"})
    cast(Any, http)._start_asgi_task = lambda cycle, app: None
    transport = Transport()
    http.connection_made(cast(Any, transport))
    return http, transport


class Ours(uvicorn_adapter.HttpProtocol):
    """The adapter, which does nothing but serve."""

    is_last = False

    def received(self, data: bytes) -> None:
        assert self.parse(data) is None

    def last_response_complete(self) -> None:
        self.is_last = True


def request(http: HttpToolsProtocol, data: bytes) -> RequestResponseCycle:
    http.data_received(data)
    return http.cycle


PUT = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


# -- attributes --------------------------------------------------------------------------------------------


class Begun(uvicorn.Server):
    """A server that has what it has before it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.should_exit = True


async def owners() -> dict[str, object]:
    http, _ = connect()
    cycle = request(http, GET + b"\r\n")
    server = Begun(http.config)
    await server._serve()
    return {
        "HttpToolsProtocol": http,
        "RequestResponseCycle": cycle,
        "FlowControl": http.flow,
        "HttpRequestParser": http.parser,
        "httptools": httptools,
        "Server": server,
    }


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in USED.items() for name in names])
async def test_the_attribute_is_there(owner: str, name: str) -> None:
    assert hasattr((await owners())[owner], name), f"{owner} has no {name}. {USED[owner][name]}"


def owner_of(node: ast.Attribute, of_self: str) -> str | None:
    """Return the owner of an attribute in the adapter's source; None if it is none of those above."""
    text = ast.unparse(node.value)
    if text in {"self", "super()"}:
        return of_self
    ends = {"cycle": "RequestResponseCycle", "flow": "FlowControl", "parser": "HttpRequestParser"}
    return "httptools" if text == "httptools" else ends.get(text.rpartition(".")[2])


def test_every_attribute_that_is_used_is_named_here() -> None:
    sources = {
        "HttpToolsProtocol": source_of(uvicorn_adapter.HttpProtocol, HttpToolsProtocol),
        "RequestResponseCycle": source_of(Cycle, RequestResponseCycle),
        "Server": source_of(uvicorn_adapter.SignalServer, uvicorn.Server),
    }
    ours = {of_self: names_of(source) - set(USED[of_self]) for of_self, source in sources.items()}
    for of_self, source in sources.items():
        for node in ast.walk(source):
            if isinstance(node, ast.Attribute) and (owner := owner_of(node, of_self)) is not None:
                is_named = node.attr in USED[owner] or node.attr in ours.get(owner, ())
                assert is_named, f"{of_self}: {ast.unparse(node)}"


def source_of(ours: type, theirs: type) -> ast.Module:
    """Return the source of a class of the adapter, and of its bases down to uvicorn's."""
    return ast.parse("\n".join(map(inspect.getsource, ours.__mro__[: ours.__mro__.index(theirs)])))


def names_of(source: ast.Module) -> set[str]:
    """Return the attributes that classes set, and their methods."""
    names = {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute) and is_set_here(node)}
    return names | {node.name for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def is_set_here(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"


def test_no_other_module_imports_what_is_private() -> None:
    """`uvicorn.Config` and `uvicorn.Server` are what uvicorn documents."""
    package = Path(protocol.__file__).parents[1]
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [getattr(node, "module", None) or alias.name for alias in node.names]
            private = [name for name in names if name.startswith(("uvicorn.", "httptools", "uvloop"))]
            assert not private or file.parent.name == "uvicorn_adapter", (file, private)


# -- uvicorn: connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_is_set_up_as_uvicorn_does_it(loop: Callable[[], asyncio.AbstractEventLoop], host: str) -> None:
    """The adapter does it itself. Otherwise something that uvicorn uses later would be missing."""
    made: list[HttpToolsProtocol] = []

    class Plain(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            before = dict(vars(self))
            super().connection_made(transport)
            self.set_up = {name: value for name, value in vars(self).items() if before.get(name) is not value}
            self.is_known = self in self.connections
            # The same connection once more, as the adapter would set it up.
            ours = uvicorn_adapter.HttpProtocol(self.config, ServerState(), {})
            ours.connection_made(transport)
            made.extend([self, ours])
            transport.close()

    async def test() -> None:
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
        server = await asyncio.get_running_loop().create_server(lambda: Plain(config, ServerState(), {}), host, 0)
        with socket.create_connection(server.sockets[0].getsockname()[:2]):
            while not made:
                await asyncio.sleep(0.001)
        server.close()
        plain, ours = made
        assert set(cast(Any, plain).set_up) == {"transport", "flow", "server", "client", "scheme"}
        assert type(ours.flow) is type(plain.flow)
        assert plain.server is not None
        for name in ("transport", "server", "client", "scheme"):
            assert getattr(ours, name) == getattr(plain, name), name
        assert cast(Any, plain).is_known
        assert ours in ours.connections

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test())


# -- uvicorn: requests and responses -----------------------------------------------------------------------


async def test_the_scope_that_begins_is_the_one_that_the_application_gets() -> None:
    """Otherwise the `Connection` put into it would not reach the handlers."""

    class Marking(HttpToolsProtocol):
        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["extensions"] = {"mark": {}}

    http, _ = connect(Marking)
    assert request(http, GET + b"\r\n").scope["extensions"] == {"mark": {}}


async def test_header_names_are_in_lower_case() -> None:
    """Otherwise `Host` would not be counted, and `Upgrade` would stay among the headers that are repeated."""
    http, _ = connect()
    request(http, b"GET / HTTP/1.1\r\nHOST: x\r\n\r\n")
    assert http.headers == [(b"host", b"x")]


async def test_a_request_to_continue_is_answered_at_the_first_receive() -> None:
    """Otherwise an uploader would send its body before there is a downloader, or wait for ever."""
    http, transport = connect()
    cycle = request(http, PUT + b"Expect: 100-continue\r\n\r\n")
    assert transport.written == b""
    http.on_body(b"x")
    await cycle.receive()
    assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_reading_stops_when_64_kib_are_kept_and_goes_on_at_the_next_receive() -> None:
    """Otherwise an upload that waits for its downloader would be read into memory."""
    http, _ = connect()
    cycle = request(http, PUT + b"\r\n" + bytes(65_536))
    assert not http.flow.read_paused
    http.data_received(b"x")
    assert http.flow.read_paused
    assert cast(Any, await cycle.receive())["body"] == bytes(65_536) + b"x"
    assert not http.flow.read_paused
    assert cycle.body == b""


async def test_what_is_kept_of_a_body_can_be_taken_away() -> None:
    """Otherwise the bytes that the parser has kept would arrive twice when a body is received directly."""
    http, _ = connect()
    cycle = request(http, PUT + b"\r\nab")
    assert cycle.body == b"ab"
    cycle.body = bytearray()
    http.data_received(b"cd")
    assert cast(Any, await cycle.receive())["body"] == b"cd"


async def test_a_body_ends_when_the_parser_says_so() -> None:
    """Otherwise `receive()` would wait for the rest of a body that was received directly."""
    http, _ = connect()
    cycle = request(http, PUT + b"\r\nab")
    await cycle.receive()
    http.on_message_complete()
    assert cast(Any, await cycle.receive())["more_body"] is False


async def test_a_request_whose_connection_is_lost_is_told() -> None:
    """Otherwise requests behind another one would be answered on a closed connection."""
    http, transport = connect()
    cycle = request(http, PUT + b"\r\n")
    cycle.disconnected = True
    cycle.message_event.set()
    assert await cycle.receive() == {"type": "http.disconnect"}
    await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
    assert transport.written == b""


async def start_response(cycle: RequestResponseCycle, *headers: tuple[bytes, bytes]) -> None:
    await cycle.send({"type": "http.response.start", "status": 200, "headers": list(headers)})


#: Requests, whole but for their bodies.
REQUESTS = [
    GET + b"\r\n",
    GET + b"Connection: close\r\n\r\n",
    b"GET /a%20b%2Fc?d=%20e&f HTTP/1.1\r\nHost: x\r\nX-Two: 1\r\nx-two: 2\r\n\r\n",
    b"GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n",
    PUT + b"Expect: 100-continue\r\n\r\n",
    PUT + b"Connection: keep-alive\r\n\r\n",
]


@pytest.mark.parametrize("data", REQUESTS)
async def test_a_request_is_what_uvicorn_makes_of_it(data: bytes) -> None:
    """The adapter makes it itself. Otherwise the application would see another request, or uvicorn miss something."""
    theirs, ours = (request(connect(kind)[0], data) for kind in (HttpToolsProtocol, Ours))
    assert ours.scope == cast(Any, theirs.scope) | {"extensions": {}}
    assert set(vars(ours)) == set(vars(theirs)) | {"joins_head", "_server_state", "_head"}
    alike = set(vars(theirs)) - {"scope", "transport", "flow", "message_event", "on_response", "access_log"}
    assert {name: getattr(ours, name) for name in alike} == {name: getattr(theirs, name) for name in alike}


@pytest.mark.parametrize("data", [*REQUESTS[:6], REQUESTS[-1]])
@pytest.mark.parametrize("pieces", [[b""], [b"abc"], [b"ab", b"", b"c"], [b"abc", b""]], ids=str)
@pytest.mark.parametrize(
    "headers", [{b"x-a": b"b"}, {b"content-length": b"LENGTH"}, {b"connection": b"close"}], ids=str
)
@pytest.mark.parametrize("status", [200, 304])
async def test_a_response_is_what_uvicorn_would_send(
    data: bytes, status: int, headers: dict[bytes, bytes], pieces: list[bytes]
) -> None:
    """The adapter writes it itself: this is what it has to write."""
    pieces = [b""] if status in {204, 304} else pieces
    length = b"%d" % sum(map(len, pieces))
    fields = [(name, value.replace(b"LENGTH", length)) for name, value in headers.items()]
    sent = []
    for kind in (HttpToolsProtocol, Ours):
        http, transport = connect(kind)
        cycle = request(http, data)
        await cycle.send({"type": "http.response.start", "status": status, "headers": fields})
        states = [bool(cycle.chunked_encoding), cycle.response_started, cycle.waiting_for_100_continue]
        for number, piece in enumerate(pieces, 1):
            await cycle.send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})
        states += [cycle.response_complete, cycle.keep_alive, transport.is_closed or getattr(http, "is_last", False)]
        sent.append((transport.written, states))
        http._unset_keepalive_if_required()
    assert sent[0] == sent[1]


@pytest.mark.parametrize("pieces", [[b"abc"], [b"ab", b"c"]])
async def test_the_head_of_a_response_is_sent_with_the_beginning_of_its_body(pieces: list[bytes]) -> None:
    """Two writes would be two system calls, and two packets."""
    http, transport = connect(Ours)
    cycle = request(http, GET + b"\r\n")
    cast(Ours, http).join_head()
    await start_response(cycle, (b"content-length", b"3"), (b"connection", b"close"))
    assert transport.written == b""
    for number, piece in enumerate(pieces, 1):
        await cycle.send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})
        assert transport.writes == number
    assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert transport.written.endswith(b"\r\n\r\nabc")
    assert transport.is_closed


@pytest.mark.parametrize("value", [b"a\r\nx: b", b"a\nx: b", b"a\rb", b"a\0b", b"a\x7f"])
async def test_a_header_cannot_have_control_characters(value: bytes) -> None:
    """Otherwise the name of a file could add headers to the response of its download."""
    http, transport = connect(Ours)
    cycle = request(http, GET + b"\r\n")
    with pytest.raises(RuntimeError):
        await start_response(cycle, (b"x-a", value))
    assert transport.written == b""


@pytest.mark.parametrize("body", [b"ab", b"abcd"])
async def test_a_response_has_to_be_as_long_as_its_head_says(body: bytes) -> None:
    """Otherwise a client would wait for the rest, or take it for the next response."""
    http, _ = connect(Ours)
    cycle = request(http, GET + b"\r\n")
    await start_response(cycle, (b"content-length", b"3"))
    with pytest.raises(RuntimeError):
        await cycle.send({"type": "http.response.body", "body": body, "more_body": False})


async def test_a_response_has_the_date_of_the_moment_when_it_starts() -> None:
    """Otherwise its date would be the time when its request arrived."""
    http, transport = connect(Ours)
    http.server_state.default_headers = [(b"date", b"then")]
    cycle = request(http, GET + b"\r\n")
    http.server_state.default_headers = [(b"date", b"now")]
    await start_response(cycle)
    assert b"date: now\r\n" in transport.written
    assert b"then" not in transport.written


async def test_every_request_is_given_to_the_application_in_its_turn() -> None:
    """Otherwise nobody would answer a request that was sent ahead."""
    http, _ = connect(Ours)
    started: list[Any] = []
    cast(Any, http)._start_asgi_task = lambda cycle, app: started.append(cycle)
    last = request(http, GET + b"\r\n" + GET + b"\r\n")
    assert len(started) == 1
    await start_response(started[0], (b"content-length", b"0"))
    await started[0].send({"type": "http.response.body", "body": b"", "more_body": False})
    assert started[1:] == [last]


async def test_trailers_do_not_pass_for_headers() -> None:
    """uvicorn adds them to the list of headers that it has last begun."""
    http, _ = connect(Ours)
    head = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    cycle = request(http, head + b"1\r\na\r\n0\r\nX-Trailer: t\r\n\r\n")
    assert cycle.more_body is False
    assert cycle.scope["headers"] == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize("may_be_sending", [True, False])
async def test_a_client_that_may_be_sending_still_gets_its_last_response(may_be_sending: bool) -> None:
    """If the connection were closed at once, the kernel of this client would throw its response away."""
    http, transport = connect(Ours)
    cycle = request(http, (PUT if may_be_sending else GET) + b"\r\n")
    await start_response(cycle, (b"connection", b"close"), (b"content-length", b"0"))
    await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})
    assert transport.is_closed is not may_be_sending
    assert cast(Ours, http).is_last is may_be_sending


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_response_can_leave_it_to_the_client_to_close(is_held: bool) -> None:
    """Otherwise our end of TLS would reset a client that has read everything."""
    http, transport = connect(Ours)
    cycle = request(http, GET + b"\r\n")
    await start_response(cycle, (b"connection", b"close"), (b"content-length", b"0"))
    if is_held:
        cast(Ours, http).keep_open()
    await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})
    assert transport.is_closed is not is_held
    http._unset_keepalive_if_required()
    assert http.timeout_keep_alive_task is None


async def test_requests_sent_ahead_wait_and_the_last_is_the_newest() -> None:
    """Otherwise their number would not be limited, and a body be counted for another request."""
    http, _ = connect()
    first = request(http, GET + b"\r\n")
    second = request(http, GET + b"\r\n" + GET + b"\r\n")
    assert (len(http.pipeline), http.cycle) == (2, second)
    assert first is not second
    assert http.flow.read_paused
    await start_response(first, (b"content-length", b"0"))
    await first.send({"type": "http.response.body", "body": b"", "more_body": False})
    assert len(http.pipeline) == 1


async def test_the_end_of_a_response_is_reported_to_the_protocol() -> None:
    """Otherwise a client that asks for nothing more would keep its connection for ever."""
    ends: list[bool] = []

    class Reporting(HttpToolsProtocol):
        def on_response_complete(self) -> None:
            ends.append(bool(self.pipeline))
            super().on_response_complete()

    http, _ = connect(Reporting)
    cycle = request(http, GET + b"\r\n")
    await start_response(cycle, (b"content-length", b"0"))
    await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})
    assert ends == [False]
    http._unset_keepalive_if_required()


# -- httptools ---------------------------------------------------------------------------------------------


class Calls:
    """Keeps what a parser reports."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_url(self, url: bytes) -> None:
        self.seen.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.seen.append((name, value))

    def on_headers_complete(self) -> None:
        self.seen.append(self.parser.get_method())

    def on_body(self, body: bytes) -> None:
        self.seen.append(bytes(body))

    def on_message_complete(self) -> None:
        self.seen.append("complete")


OFFER = b"PUT /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n"


def test_an_offered_upgrade_stops_the_parser_behind_the_headers() -> None:
    """Otherwise the body of such a request would be parsed as the next request, or twice."""
    calls = Calls()
    with pytest.raises(httptools.HttpParserUpgrade) as offer:
        calls.parser.feed_data(OFFER + b"ab")
    assert offer.value.args == (len(OFFER),)
    assert calls.parser.should_upgrade()
    assert calls.seen[-2:] == [b"PUT", "complete"]


def test_the_offer_is_only_that_of_the_upgrade_header() -> None:
    """Otherwise it would be offered again without end when the request is repeated without `Upgrade`."""
    calls = Calls()
    calls.parser.feed_data(OFFER.replace(b"Upgrade: h2c\r\n", b"") + b"ab")
    assert calls.seen[-2:] == [b"ab", "complete"]
    assert not calls.parser.should_upgrade()


def test_connect_is_known_before_it_is_an_upgrade() -> None:
    """Otherwise it would be repeated without end."""
    calls = Calls()
    with pytest.raises(httptools.HttpParserUpgrade):
        calls.parser.feed_data(b"CONNECT x:80 HTTP/1.1\r\n\r\n")
    assert b"CONNECT" in calls.seen


def test_what_a_callback_raises_is_the_context_of_the_error() -> None:
    """Otherwise every refusal would say that the request is no HTTP."""

    class Refusing(Calls):
        def on_headers_complete(self) -> None:
            raise ValueError("refused")

    with pytest.raises(httptools.HttpParserError) as error:
        Refusing().parser.feed_data(GET + b"\r\n")
    assert isinstance(error.value.__context__, ValueError)


def test_trailers_are_reported_as_headers_after_the_headers() -> None:
    """Otherwise the adapter would drop something else when it drops them."""
    calls = Calls()
    head = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    calls.parser.feed_data(head + b"1\r\na\r\n0\r\nTrailer: t\r\n\r\n")
    assert calls.seen[-4:] == [b"PUT", b"a", (b"Trailer", b"t"), "complete"]


@pytest.mark.parametrize("left", [3, 2**40])
def test_a_new_parser_takes_the_rest_of_a_body_and_what_is_behind_it(left: int) -> None:
    """Otherwise the rest of an upload that has ended would be parsed as requests."""
    calls = Calls()
    calls.parser.feed_data(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % left)
    calls.seen.clear()
    calls.parser.feed_data(b"abc" + GET + b"\r\n")
    if left == 3:
        assert calls.seen == [b"abc", "complete", b"/", (b"Host", b"x"), b"GET", "complete"]
    else:
        assert calls.seen == [b"abc" + GET + b"\r\n"]


def test_what_is_behind_a_request_that_wants_to_close_is_ignored() -> None:
    """Otherwise those bytes would be an error, which aborts the response that is under way."""
    calls = Calls()
    calls.parser.feed_data(GET + b"Connection: close\r\n\r\n" + GET + b"\r\n")
    assert calls.seen.count("complete") == 1


# -- the event loops ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(tmp_path_factory.mktemp("tls")))
    return context


class Direct(asyncio.BufferedProtocol):
    """Receives `left` bytes into memory of its own, then lets the other protocol receive."""

    def __init__(self, streamed: "Streamed", left: int) -> None:
        self._streamed, self.left = streamed, left
        self._room = bytearray(1000)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._room)[: self.left]

    def buffer_updated(self, nbytes: int) -> None:
        self._streamed.take(bytes(self._room[:nbytes]))
        self.left -= nbytes
        if not self.left:
            self._streamed.receive_by(self._streamed)

    def connection_lost(self, exc: Exception | None) -> None:
        self._streamed.connection_lost(exc)


class Streamed(asyncio.Protocol):
    """Receives something, then has `Direct` receive 100,000 bytes, and so on."""

    def __init__(self, size: int) -> None:
        self.got = b""
        self.switches = 0
        self._size = size
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.socket = transport.get_extra_info("socket")
        self.numbers = (self.socket.fileno(), self.socket.family, self.socket.type)

    def data_received(self, data: bytes) -> None:
        self.take(data)
        self.switches += 1
        self.receive_by(Direct(self, 100_000))

    def take(self, data: bytes) -> None:
        self.got += data
        if len(self.got) == self._size:
            self.transport.close()

    def receive_by(self, receiver: asyncio.BaseProtocol) -> None:
        self.transport.pause_reading()
        self.transport.set_protocol(receiver)
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def send_in_thread(address: tuple[str, int], data: bytes, *, tls: bool) -> None:
    connection = socket.create_connection(address, timeout=20)
    if tls:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        connection = client.wrap_socket(connection)
    with connection:
        connection.sendall(data)
        connection.recv(1)  # until the server closes: over TLS, what it has not read by then would be lost


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_can_be_received_by_one_protocol_and_then_by_another(
    loop: Callable[[], asyncio.AbstractEventLoop], tls: bool, context: ssl.SSLContext
) -> None:
    """Otherwise a body that is received directly would lose bytes, or get them out of order.

    And the socket has a descriptor, a family and a type. Otherwise nobody could ask the kernel what it knows.
    """
    data = bytes(index * 7 % 251 for index in range(1_000_000))

    async def test() -> None:
        streamed = Streamed(len(data))
        server = await asyncio.get_running_loop().create_server(
            lambda: streamed, "127.0.0.1", 0, ssl=context if tls else None
        )
        address = server.sockets[0].getsockname()
        sending = asyncio.create_task(asyncio.to_thread(send_in_thread, address, data, tls=tls))
        await asyncio.wait_for(streamed.lost.wait(), 20)
        await sending
        server.close()
        assert streamed.got == data
        assert streamed.switches > 1
        assert streamed.numbers[0] > 0
        assert streamed.numbers[1:] == (socket.AF_INET, socket.SOCK_STREAM)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test())


# -- uvicorn's server --------------------------------------------------------------------------------------


def test_the_signals_that_end_a_server() -> None:
    """Otherwise a node would be killed by SIGTERM in the middle of its transfers."""
    assert set(HANDLED_SIGNALS) >= {signal.SIGINT, signal.SIGTERM}


@pytest.fixture
def handlers() -> Iterator[None]:
    kept = {sig: signal.getsignal(sig) for sig in HANDLED_SIGNALS}
    yield
    for sig, handler in kept.items():
        signal.signal(sig, handler)


@pytest.mark.usefixtures("handlers")
def test_a_server_calls_what_the_adapter_replaces() -> None:
    """Otherwise signals would not begin a drain, and the start would not be noticed."""
    calls: list[object] = []

    class Server(uvicorn_adapter.SignalServer):
        def on_started(self) -> None:
            calls.append(self.started)
            signal.raise_signal(signal.SIGTERM)

        def on_signal(self, sig: int) -> None:
            calls.append(sig)
            self.exit()

    assert signal.SIGTERM in HANDLED_SIGNALS, "or the signal below would end the tests"
    Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None)).run()
    assert calls == [True, signal.SIGTERM]
    assert all(signal.getsignal(sig) is signal.SIG_IGN for sig in HANDLED_SIGNALS)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_clients_that_come_at_once_are_served_as_one_that_comes_alone(tls: bool, tmp_path: Path) -> None:
    """Most of a crowd are not accepted by uvicorn's own servers. They have to get the same protocol, state and TLS."""
    seen: list[tuple[str, object]] = []
    connected: list[socket.socket] = []

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["key"] = "value"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append((scope["scheme"], scope["state"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    class Server(uvicorn_adapter.SignalServer):
        def on_started(self) -> None:
            for _ in range(40):
                connected.append(socket.create_connection(listener.getsockname()))
            self.asking = asyncio.create_task(self.ask())

        async def ask(self) -> None:
            await asyncio.gather(*(asyncio.to_thread(ask, each, tls=tls) for each in connected))
            self.exit()

    certificate, key = make_certificate(tmp_path) if tls else (None, None)
    config = uvicorn.Config(answering, http=Ours, log_config=None, ssl_certfile=certificate, ssl_keyfile=key)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.setblocking(False)
        server = Server(config)
        server.run(sockets=[listener])
    assert seen == [("https" if tls else "http", {"key": "value"})] * 40
    assert not server.server_state.connections


def ask(connection: socket.socket, *, tls: bool) -> None:
    if tls:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        connection = client.wrap_socket(connection)
    with connection:
        connection.sendall(GET + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_flow_control_is_what_it_was() -> None:
    """Its flag is set by hand when another protocol begins to receive: pausing must go by it."""
    calls: list[str] = []

    class Paused:
        def pause_reading(self) -> None:
            calls.append("pause")

        def resume_reading(self) -> None:
            calls.append("resume")

    flow = FlowControl(cast(Any, Paused()))
    flow.resume_reading()
    flow.pause_reading()
    flow.pause_reading()
    flow.read_paused = False
    flow.pause_reading()
    flow.resume_reading()
    assert calls == ["pause", "pause", "resume"]
