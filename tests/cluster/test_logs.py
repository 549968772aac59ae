"""The log: one line for each request and one for each transfer, tied together by ids, and no token in any of them."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from relay.logs import Json, Text, fields
from tests.support.cluster import Cluster, Curl, NodeProcess
from tests.support.ports import free_port
from tests.support.wait import wait_until

TOKEN = "0123456789abcdefABCDEF"


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    cluster = Cluster(
        [NodeProcess("alone", settings={"log_format": "auto", "admin_secret": "admin-secret"})], None, "relay"
    )
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
    token = node.token()
    with Curl("-T", "-", "-H", "X-Request-ID: up-1", node.url(0, token, "x"), pipe=True) as upload:
        upload.write_all(b"12345")
        assert httpx.get(node.url(0, token, "x") + "?wait=20", headers={"x-request-id": "down-1"}).content == b"12345"
        assert upload.finish()[0] == 0
    (ended,) = wait_until(lambda: lines(node, message="ended", token=f"{token[:4]}…"), "the transfer's line")
    assert (ended["outcome"], ended["bytes"]) == ("complete", 5)
    for request, method in (("up-1", "PUT"), ("down-1", "GET")):

        def found(wanted: str = request) -> list[dict[str, Any]]:
            return lines(node, message="answered", request=wanted)

        (answered,) = wait_until(found, "a request's line")
        assert (answered["method"], answered["status"], answered["outcome"]) == (method, 200, "complete")
        assert answered["transfer"] == ended["transfer"]


def test_a_rejection_says_why(node: Cluster) -> None:
    answer = httpx.put(node.url(0, "A" * 22, "x"), content=b"x")
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


def test_a_token_that_a_client_sends_as_its_request_id_is_shortened(node: Cluster) -> None:
    token = node.token()
    httpx.get(node.url(0, token, "x") + "?wait=0", headers={"x-request-id": token})
    wait_until(lambda: lines(node, request=f"{token[:4]}…"), "the request's line")
    assert token not in node.logs()


def record(message: str, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("relay", logging.INFO, __file__, 1, message, ("a",), None)
    made.__dict__.update(extra)
    return made


def test_the_text_and_the_json_form() -> None:
    said = record("hello %s", **fields(name="x y", token=TOKEN))
    assert Text("%(levelname)s %(message)s").format(said) == "INFO hello a name=x y token=0123…"
    entry = json.loads(Json().format(said))
    assert (entry["message"], entry["name"], entry["token"], entry["level"]) == ("hello a", "x y", "0123…", "info")


def test_a_traceback_is_part_of_its_line_and_contains_no_token() -> None:
    try:
        raise ValueError(f"relay:token:{{{TOKEN}}}")
    except ValueError:
        said = record("a bug: %s", exc_info=sys.exc_info())
    line = Json().format(said)
    assert "\n" not in line
    assert "ValueError: relay:token:{0123…}" in json.loads(line)["exception"]


def test_on_a_terminal_it_is_text() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "relay", "serve", "--host", "127.0.0.1", "--port", str(free_port())]
    with subprocess.Popen(command, stderr=theirs) as process:
        os.close(theirs)
        assert b" INFO relay node " in os.read(ours, 1000)
        process.terminate()
    os.close(ours)
