"""deploy/haproxy.cfg in front of real nodes: errors that come before the request's end, and the ids of its log."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.balancer import Balancer
from tests.support.cluster import Cluster, Curl, NodeProcess, over_redis
from tests.support.haproxy import HAProxy
from tests.support.nginx import Nginx
from tests.support.raw import Raw, raw
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

#: Ways to send a body that is far larger than all buffers on the way: its headers, and one piece of it.
LARGE = 100_000_000
PIECE = b"x" * 65536
FRAMINGS = {
    "length": (f"Content-Length: {LARGE}", PIECE),
    "chunked": ("Transfer-Encoding: chunked", b"10000\r\n" + PIECE + b"\r\n"),
}


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer) -> Iterator[Cluster]:
    with over_redis(redis_server, "ab", trusted_proxies="127.0.0.1", log_format="json") as cluster:
        yield cluster


@pytest.fixture
def token(proxy: HAProxy) -> str:
    return httpx.post(proxy.url + "/token").text.strip()


@pytest.fixture
def busy(proxy: HAProxy, cluster: Cluster, token: str) -> Iterator[str]:
    """Yield the path of a name that is in use."""
    with Curl("-T", "-", f"{proxy.url}/{token}/busy", pipe=True) as up:
        cluster.wait_state(token, "waiting")
        yield f"/{token}/busy"
        up.close()
        httpx.delete(f"{proxy.url}/{token}/busy")
        up.finish()


def head_of_put(path: str, framing: str) -> bytes:
    return f"PUT {path} HTTP/1.1\r\nHost: relay\r\n{FRAMINGS[framing][0]}\r\n\r\n".encode()


def send_until_told(client: Raw, piece: bytes) -> bytes:
    """Send as long as the connection takes bytes and there is no answer, without reading. Return the answer's header.

    Clients like wget and Python's http.client send everything before they read.
    """
    client.send_until_refused(piece, LARGE)
    return client.head()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_early_error_reaches_a_client_that_sends_on_and_says_close(proxy: HAProxy, busy: str, framing: str) -> None:
    """RFC 9112 section 9.6: a server that will close says so, and reads on, or its response is lost in a reset."""
    with raw(proxy.url, head_of_put(busy, framing)) as client:
        head = send_until_told(client, FRAMINGS[framing][1])
    assert head.startswith(b"HTTP/1.1 409 "), head
    assert b"\r\nconnection: close\r\n" in head.lower()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_error_in_the_middle_of_an_upload_says_close(proxy: HAProxy, token: str, framing: str) -> None:
    with (
        raw(proxy.url, head_of_put(f"/{token}/half", framing)) as client,
        Curl("-N", f"{proxy.url}/{token}/half?wait=20") as down,
    ):
        client.send(FRAMINGS[framing][1] * 2)
        assert down.read(1000)
        down.process.kill()
        head = send_until_told(client, FRAMINGS[framing][1])
    status = b"502" if framing == "length" else b"424"  # without a length it may come from a pipe
    assert head.startswith(b"HTTP/1.1 %b " % status), head
    assert b"\r\nconnection: close\r\n" in head.lower()


def test_a_connection_is_kept_after_an_upload_that_was_read_whole_and_after_errors_without_a_body(
    proxy: HAProxy, token: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(httpx.get, f"{proxy.url}/{token}/x?wait=20")
        put = httpx.put(f"{proxy.url}/{token}/x", content=b"hello")
        assert got.result().content == b"hello"
    missing = httpx.get(f"{proxy.url}/{token}/none?wait=0")
    assert (put.status_code, missing.status_code) == (200, 404)
    assert "close" not in (put.headers.get("connection"), missing.headers.get("connection"))


#: A program for Node with an agent that keeps one connection. It uploads slowly, and sends another request when the
#: upload was answered. It prints the statuses of both.
AGENT = """
const http = require('http'), {Readable} = require('stream');
const [port, path, size] = process.argv.slice(1);
const agent = new http.Agent({keepAlive: true, maxSockets: 1});
let left = +size;
const piece = () => { body.push(left > 0 ? Buffer.alloc(65536) : null); left -= 65536; };
const body = new Readable({read() { setTimeout(piece, 20); }});
const second = () => http.get({port, agent, path: '/healthz'}, r => { console.log(r.statusCode); process.exit(); });
const upload = http.request({port, agent, method: 'PUT', path, headers: {'Content-Length': +size}}, response => {
  console.log(response.statusCode); response.resume(); response.on('end', second);
});
upload.on('error', () => {});
body.pipe(upload);
"""


def test_the_next_request_of_a_keep_alive_agent_is_served(proxy: HAProxy, busy: str) -> None:
    if not (node := shutil.which("node")):
        pytest.skip("no node on PATH: a keep-alive agent was not tested")
    command = [node, "-e", AGENT, str(proxy.port), busy, str(65536 * 1000)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.split() == ["409", "200"], done


def test_a_request_has_one_id_in_the_logs_of_balancer_and_node(proxy: HAProxy, cluster: Cluster, token: str) -> None:
    given = httpx.get(f"{proxy.url}/{token}/x?wait=0", headers={"X-Request-ID": "mine-1"})
    made = httpx.get(f"{proxy.url}/{token}/x?wait=0")
    assert given.headers.get_list("x-request-id") == ["mine-1"]
    for answer in (given, made):
        request = answer.headers["x-request-id"]
        (line,) = wait_until(lambda wanted=request: proxy.lines(request=wanted), "the balancer's line")  # type: ignore[misc]
        assert (line["method"], line["status"]) == ("GET", "404")
        assert line["node"] == answer.headers["relay-node"]
        (of_node,) = wait_until(lambda wanted=request: of_request(cluster, wanted), "the node's line")  # type: ignore[misc]
        assert of_node["address"] == line["client"].rpartition(":")[0]


def of_request(cluster: Cluster, request: str) -> list[dict[str, object]]:
    every = [json.loads(line) for line in cluster.logs().splitlines() if line.startswith("{")]
    return [line for line in every if line.get("request") == request and line["message"] == "answered"]


@pytest.mark.parametrize("given", ["", "a b", 'x"y', "x" * 65, "request=other", "TOKEN", "a-TOKEN.b"])
def test_an_id_that_a_node_would_not_accept_or_that_has_a_token_is_replaced(
    proxy: HAProxy, token: str, given: str
) -> None:
    answer = httpx.get(proxy.url + "/healthz", headers={"X-Request-ID": given.replace("TOKEN", token)})
    request = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request)
    wait_until(lambda: proxy.lines(request=request), "the balancer's line")


def node_of_download(proxy: Balancer, token: str, upload: str, download: str) -> tuple[str, str]:
    """Transfer something. Return the nodes of both clients."""
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(httpx.get, f"{proxy.url}{download}?wait=20")
        put = httpx.put(f"{proxy.url}{upload}", content=b"hello")
        assert (put.status_code, got.result().content) == (200, b"hello")
        return put.headers["relay-node"], got.result().headers["relay-node"]


def assert_clients_meet(proxy: Balancer, token: str) -> None:
    """Check that both clients of a transfer are on one node, but not all transfers."""
    nodes = []
    for name in ("a", "b b", "ü", "Zn", "e+e", "5", "6", "7"):
        link = httpx.post(f"{proxy.url}/{token}/{quote(name)}/link").text.strip()
        uploader, downloader = node_of_download(proxy, token, f"/{token}/{quote(name)}", f"/{link}/{escaped(name)}")
        assert uploader == downloader
        nodes.append(uploader)
    assert len(set(nodes)) == 2, "all names are on one node"


def test_both_clients_of_a_transfer_meet_on_one_node(proxy: HAProxy, token: str) -> None:
    """Whether they have the token or a link, and however they write the name."""
    assert_clients_meet(proxy, token)


def test_behind_nginx_they_meet_if_its_configuration_names_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    with Nginx(cluster.nodes, tmp_path, by_transfer=True) as proxy:
        assert_clients_meet(proxy, httpx.post(proxy.url + "/token").text.strip())


def escaped(name: str) -> str:
    """Percent-encode every byte."""
    return "".join(f"%{byte:02X}" for byte in name.encode())


def test_with_leastconn_the_clients_of_a_transfer_are_on_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    with HAProxy(cluster.nodes, tmp_path, balance="leastconn") as proxy:
        token = httpx.post(proxy.url + "/token").text.strip()
        pairs = [node_of_download(proxy, token, f"/{token}/{name}", f"/{token}/{name}") for name in "abcdef"]
    assert any(uploader != downloader for uploader, downloader in pairs)


@pytest.mark.parametrize(
    ("front", "clients"),
    [
        ("127.0.0.1", ["203.0.113.2", "203.0.113.3", "127.0.0.1", "127.0.0.1"]),
        ("192.0.2.0/24", ["127.0.0.1"] * 4),
        ("", ["127.0.0.1"] * 4),
    ],
)
def test_only_a_proxy_in_front_may_name_the_client(
    cluster: Cluster, tmp_path: Path, front: str, clients: list[str]
) -> None:
    """It names the client last, behind whatever the client itself has claimed. Its connections carry many clients."""
    with HAProxy(cluster.nodes, tmp_path, front=front) as proxy, httpx.Client(base_url=proxy.url) as kept:
        for given, client in zip(("1.2.3.4, 203.0.113.2", "203.0.113.3", None, "nobody"), clients, strict=True):
            answer = kept.get("/robots.txt", headers={} if given is None else {"X-Forwarded-For": given})
            request = answer.headers["x-request-id"]
            (seen,) = wait_until(lambda wanted=request: of_request(cluster, wanted), "the node's line")  # type: ignore[misc]
            (line,) = wait_until(lambda wanted=request: proxy.lines(request=wanted), "the balancer's line")  # type: ignore[misc]
            assert seen["address"] == line["client"].rpartition(":")[0] == client, given


def test_the_balancers_own_errors_have_an_id_too_and_say_close(tmp_path: Path) -> None:
    cluster = Cluster([NodeProcess("alone")], None, "relay")
    with HAProxy(cluster.nodes, tmp_path) as proxy:
        cluster.stop()
        with raw(proxy.url, head_of_put("/token/x", "length")) as client:
            head = client.head().decode().lower()
        assert re.match(r"http/1.1 50[23] ", head)
        assert "\r\nconnection: close\r\n" in head
        (request,) = re.findall(r"\r\nx-request-id: (\S+)\r\n", head)
        wait_until(lambda: proxy.lines(request=request, node="-"), "the balancer's line")
