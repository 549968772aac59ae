"""Each name of uvicorn, httptools and uvloop that `relay/server/uvicorn_adapter` uses.

If a test fails after an upgrade, the sentence beside it says what would break. Then mend the adapter.
"""

import ast
import inspect
import socket
from pathlib import Path

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from relay.server import protocol, uvicorn_adapter
from relay.server.uvicorn_adapter.cycle import Cycle
from tests.contract.http import GET, connect, request

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
