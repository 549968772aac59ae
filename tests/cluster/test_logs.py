"""The log: one line for each request and one for each transfer, tied together by ids, and no token in any of them."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from relay.access import Token
from relay.logs import Json, Text, fields
from relay.names import new_id
from tests.support.cluster import Cluster, Curl, NodeProcess, id_of
from tests.support.ports import free_port
from tests.support.wait import wait_until

TOKEN = "0123456789abcdefABCDEF01234567"


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    settings = {"log_format": "auto", "admin_secret": "admin-secret", "trusted_proxies": "127.0.0.1"}
    cluster = Cluster([NodeProcess("alone", settings=settings)], None, "relay")
    yield cluster
    cluster.stop()


def lines(node: Cluster, **wanted: object) -> list[dict[str, Any]]:
    """Return the lines that have these fields."""
    every = [json.loads(line) for line in node.logs().splitlines()]
    return [line for line in every if wanted.items() <= line.items()]


def test_without_a_terminal_every_line_is_json(node: Cluster) -> None:
    assert lines(node)
    for line in lines(node):
        assert {"time", "level", "logger", "message"} <= line.keys()


def test_a_transfers_id_links_the_lines_of_both_sides(node: Cluster) -> None:
    token, traced = node.token(), ("-H", f"traceparent: 00-{TRACE}-{SPAN}-01")
    with Curl("-T", "-", "-H", "X-Request-ID: up-1", *traced, node.url(0, token, "x"), pipe=True) as upload:
        upload.write_all(b"12345")
        assert httpx.get(node.url(0, token, "x") + "?wait=20", headers={"x-request-id": "down-1"}).content == b"12345"
        assert upload.finish()[0] == 0
    (ended,) = wait_until(lambda: lines(node, message="ended", token=id_of(token)), "the transfer's line")
    assert (ended["outcome"], ended["bytes"]) == ("complete", 5)
    for request, method in (("up-1", "PUT"), ("down-1", "GET")):

        def found(wanted: str = request) -> list[dict[str, Any]]:
            return lines(node, message="answered", request=wanted)

        (answered,) = wait_until(found, "a request's line")
        assert (answered["method"], answered["status"], answered["outcome"]) == (method, 200, "complete")
        assert answered["transfer"] == ended["transfer"]
        assert answered.get("trace") == (TRACE if method == "PUT" else None)


def test_who_made_a_token_and_who_took_a_transfer(node: Cluster) -> None:
    made = httpx.post(node[0].url + "/token", headers={"x-request-id": "made-1", "x-forwarded-for": "203.0.113.5"})
    token = made.text.strip()
    (line,) = wait_until(lambda: lines(node, message="answered", token=id_of(token)), "the line of POST /token")
    assert (line["method"], line["request"], line["address"]) == ("POST", "made-1", "203.0.113.5")

    upload_from = {"x-forwarded-for": "198.51.100.7"}
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(httpx.put, node.url(0, token, "x"), content=b"12345", headers=upload_from)
        takes = {"x-forwarded-for": "2001:db8:1:2:3:4:5:6"}
        assert httpx.get(node.url(0, token, "x") + "?wait=20", headers=takes).content == b"12345"
        assert sent.result().status_code == 200
    (ended,) = wait_until(lambda: lines(node, message="ended", token=id_of(token)), "the transfer's line")

    def both() -> bool:
        return len(lines(node, message="answered", transfer=ended["transfer"])) == 2

    wait_until(both, "the lines of both requests")
    (making,) = lines(node, message="token made", token=id_of(token))
    assert making["address"] == "203.0.113.5"
    audited = lines(node, logger="relay.audit", transfer=ended["transfer"])
    events = {line["message"]: line["address"] for line in audited}
    assert events == {"claimed": "198.51.100.7", "joined": "2001:db8:1:2::/64"}
    found = {line["method"]: line["address"] for line in lines(node, message="answered", transfer=ended["transfer"])}
    assert found == {"PUT": "198.51.100.7", "GET": "2001:db8:1:2::/64"}  # of IPv6, what is counted


def test_who_cancelled_and_who_revoked(node: Cluster) -> None:
    token, by = node.token(), {"x-forwarded-for": "203.0.113.9"}
    with Curl("-T", "-", node.url(0, token, "x"), pipe=True):
        node.wait_state(token, "waiting")
        assert httpx.delete(node.url(0, token, "x"), headers=by).status_code == 204
    assert httpx.delete(node.url(0, token), headers=by).status_code == 204

    def events() -> list[str]:
        found = lines(node, logger="relay.audit", token=id_of(token), address="203.0.113.9")
        return [line["message"] for line in found]

    wait_until(lambda: events() == ["cancelled", "token revoked"], "their lines")


def test_a_strangers_claim_about_its_address_is_not_logged() -> None:
    node = Cluster([NodeProcess("stranger", settings={"log_format": "json"})], None, "relay")
    try:
        httpx.get(node[0].url + "/nothing", headers={"x-forwarded-for": "203.0.113.5"})
        (line,) = wait_until(lambda: lines(node, message="answered", status=401), "the request's line")
        assert line["address"] == "127.0.0.1"
    finally:
        node.stop()


def test_a_rejection_says_why(node: Cluster) -> None:
    answer = httpx.put(node.url(0, "A" * 30, "x"), content=b"x")
    (line,) = wait_until(lambda: lines(node, request=answer.headers["x-request-id"]), "the request's line")
    assert (line["status"], line["reason"]) == (401, "unknown_token")


def test_routine_requests_are_not_logged_but_guessed_secrets_are(node: Cluster) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/"):
        httpx.get(node[0].url + path, headers={"x-request-id": "routine"})
    httpx.get(node[0].url, headers={"x-request-id": "guess", "authorization": "Bearer guessed"})
    (line,) = wait_until(lambda: lines(node, request="guess"), "the request's line")
    assert (line["status"], line["reason"]) == (401, "operators_only")
    assert not lines(node, request="routine")


@pytest.mark.parametrize("given", ["", "a b", 'x"y', "x" * 65, "ä"])
def test_an_invalid_request_id_is_replaced(node: Cluster, given: str) -> None:
    answer = httpx.get(node[0].url + "/healthz", headers=[(b"x-request-id", given.encode())])
    assert len(answer.headers["x-request-id"]) == 16


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE[:-1]}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
        ("", False),
    ],
)
def test_the_trace_of_a_request_is_in_its_lines_if_it_is_valid(node: Cluster, given: str, is_taken: bool) -> None:
    """W3C Trace Context, section 3.2."""
    request = new_id()
    httpx.get(node.url(0, node.token(), "x") + "?wait=0", headers={"traceparent": given, "x-request-id": request})
    (line,) = wait_until(lambda: lines(node, message="answered", request=request), "the request's line")
    assert line.get("trace") == (TRACE if is_taken else None)


def test_two_traces_of_one_request_are_none(node: Cluster) -> None:
    headers = [("traceparent", f"00-{TRACE}-{SPAN}-01")] * 2 + [("x-request-id", "two-traces")]
    httpx.get(node.url(0, node.token(), "x") + "?wait=0", headers=headers)
    (line,) = wait_until(lambda: lines(node, message="answered", request="two-traces"), "the request's line")
    assert "trace" not in line


def test_a_token_that_a_client_sends_as_its_request_id_is_shortened(node: Cluster) -> None:
    token = node.token()
    httpx.get(node.url(0, token, "x") + "?wait=0", headers={"x-request-id": token})
    wait_until(lambda: lines(node, request=f"{id_of(token)}…"), "the request's line")
    assert token not in node.logs()


def record(message: str, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("relay", logging.INFO, __file__, 1, message, ("a",), None)
    made.__dict__.update(extra)
    return made


def test_the_text_and_the_json_form() -> None:
    said = record("hello %s", **fields(name="x y", token=TOKEN))
    assert Text("%(levelname)s %(message)s").format(said) == "INFO hello a name=x y token=01234567…"
    entry = json.loads(Json().format(said))
    assert (entry["message"], entry["name"], entry["token"], entry["level"]) == ("hello a", "x y", "01234567…", "info")


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        (TOKEN, "01234567…"),
        ("abcdefgh" + 14 * "x", "abcdefgh…"),  # a token of version 0.1
        ("abcdefghr" + 32 * "0", "abcdefgh…"),
        ("0123456789abcdef" + 22 * "Z", "0123456789abcdef…"),
        ("abcdefgh", "abcdefgh"),
        ("0123456789abcdef", "0123456789abcdef"),
    ],
)
def test_ids_are_shown_and_secrets_are_not(secret: str, shown: str) -> None:
    assert Text("%(message)s").format(record("about %s", **fields(path=f"/{secret}/x"))) == f"about a path=/{shown}/x"


@pytest.mark.parametrize(
    "fact", [Token.parse(TOKEN.encode()), [Token.parse(TOKEN.encode())], {"a": {"b": TOKEN}}, TOKEN, f"a\n{TOKEN}\t"]
)
def test_no_json_contains_a_secret_however_deep_it_is(fact: object) -> None:
    for line in (Json().format(record("%s", **fields(f=fact))), Json().format(record(f"%s\n{TOKEN}"))):
        assert TOKEN[8:] not in line


def test_a_traceback_is_part_of_its_line_and_contains_no_token() -> None:
    try:
        raise ValueError(f"relay:token:{{{TOKEN}}}")
    except ValueError:
        said = record("a bug: %s", exc_info=sys.exc_info())
    line = Json().format(said)
    assert "\n" not in line
    assert "ValueError: relay:token:{01234567…}" in json.loads(line)["exception"]


def test_on_a_terminal_it_is_text() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "relay", "serve", "--host", "127.0.0.1", "--port", str(free_port())]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    with subprocess.Popen(command, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            said = os.read(ours, 1000)
        finally:
            process.terminate()
    os.close(ours)
    assert b" INFO relay node " in said
