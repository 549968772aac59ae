"""What `relay/server/uvicorn_adapter` relies on in uvicorn's connections, requests and responses, although uvicorn does
not promise it.

If a test fails after an upgrade, the sentence beside it says what would break. Then mend the adapter.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from relay.server import uvicorn_adapter
from tests.contract.http import GET, PUT, Ours, app, connect, request

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
