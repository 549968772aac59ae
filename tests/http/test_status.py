"""`GET /`: the page, for strangers and for the operator, in public and in private; and what its button does."""

import contextlib
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.cluster import Cluster, Curl, NodeProcess, assert_no_traceback, id_of
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

SECRET = "the-operators-secret"
#: What curl, a browser and a script send as Accept, and what they get.
FORMS = {
    "*/*": "text/plain",
    "text/html,application/xhtml+xml,*/*;q=0.8": "text/html",
    "application/json": "application/json",
}


#: The nodes, queries and secrets with which nobody sees the status.
ASKED: list[tuple[int, str, str | None]] = [(1, "", None), (1, "", "wrong"), (0, "", "wrong"), (0, "?admin", None)]


@pytest.fixture(scope="module")
def nodes(redis_server: RedisServer) -> Iterator[Cluster]:
    """Start two nodes of one cluster: the first shows strangers its status page, the second does not."""
    settings = {"admin_secret": SECRET, "heartbeat": 0.2, "node_death": 2, "prefix": "status"}
    nodes = [
        NodeProcess("open", redis_server.url, settings),
        NodeProcess("closed", redis_server.url, settings | {"status": "private"}),
    ]
    cluster = Cluster(nodes, redis_server.client(), "status")
    yield cluster
    cluster.stop()
    assert not list(cluster.keys("uploads"))
    assert_no_traceback(cluster.logs())


def status(nodes: Cluster, node: int = 0) -> dict[str, Any]:
    headers = {"accept": "application/json", "authorization": f"Bearer {SECRET}"}
    answer: dict[str, Any] = httpx.get(nodes[node].url, headers=headers).json()
    return answer


def find(nodes: Cluster, token: str, state: str) -> dict[str, Any]:
    """Return the transfer as it is shown, or an empty dict if it is not."""
    wanted = {"token": id_of(token), "state": state}
    return next((t for t in status(nodes)["transfers"] if wanted.items() <= t.items()), {})


def find_token(nodes: Cluster, token: str) -> dict[str, Any]:
    """Return the token as it is shown, or an empty dict if it is not."""
    return next((life for life in status(nodes)["expiring"] if life["token"] == id_of(token)), {})


def test_a_transfer_from_its_wait_to_its_end(nodes: Cluster) -> None:
    """Any node shows it, whichever nodes its clients are on."""
    token = nodes.token()
    with Curl("-T", "-", nodes.url(0, token, "my%20file"), pipe=True) as upload:
        waiting = wait_until(lambda: find(nodes, token, "waiting"), "the upload to be shown")
        assert (waiting["name"], waiting["uploader"], waiting["downloader"]) == ("my file", nodes[0].id, None)
        with Curl("-N", nodes.url(1, token, "my%20file")) as download:
            upload.write(b"x" * 100)
            assert download.read(100) == b"x" * 100
            upload.write(b"y")  # with which it learns of the acknowledgement
            assert download.read(1) == b"y"
            wait_until(lambda: find(nodes, token, "streaming").get("delivered", 0) >= 100, "its bytes to be shown")
            streaming = find(nodes, token, "streaming")
            assert (streaming["uploader"], streaming["downloader"]) == (nodes[0].id, nodes[1].id)
            assert streaming["length"] is None
            wait_until(lambda: status(nodes, 1)["streaming"] == 1, "the other node to have read of it")

            def streaming_by_node() -> list[int]:
                by_node = {node["node"]: node for node in status(nodes)["nodes"]}
                return [by_node[node.id]["streaming"] for node in nodes.nodes]

            wait_until(lambda: streaming_by_node() == [1, 1], "the download to be in its node's report")
            upload.close()
            assert download.finish()[0] == 0
    wait_until(lambda: not status(nodes)["transfers"], "it to be gone")

    def complete() -> int:
        return sum(node["complete"] for node in status(nodes)["nodes"])

    wait_until(complete, "it to be in the report of the node that counted it")
    assert complete() == 1


def test_a_transfer_that_is_over_is_not_shown(cluster: Cluster, token: str) -> None:
    """Not even between two heartbeats of the node that had its upload."""

    def shown() -> bool:
        answer = httpx.get(cluster[0].url, headers={"accept": "application/json"}).json()
        return any(transfer["token"] == id_of(token) for transfer in answer["transfers"])

    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        wait_until(shown, "the upload to be shown")
        with Curl(cluster.url(-1, token, "x")) as download:
            upload.write_all(b"data")
            assert upload.finish()[0] == 0
            assert not shown()
            assert download.finish() == (0, b"data")


def test_another_nodes_row_says_how_old_it_is(nodes: Cluster) -> None:
    heartbeat = 0.2
    for asked, other in ((0, 1), (1, 0)):
        age = {row["node"]: row["age"] for row in status(nodes, asked)["nodes"]}
        assert age[nodes[asked].id] == 0
        assert 0 <= age[nodes[other].id] < heartbeat + 5


def test_a_token_from_its_making_to_its_end(nodes: Cluster) -> None:
    token = nodes.token()

    made = wait_until(lambda: find_token(nodes, token), "the token to be shown")
    assert 1190 <= made["expires_in"] <= 1200
    httpx.get(nodes.url(0, token, "x") + "?wait=0")
    wait_until(lambda: find_token(nodes, token)["uses"] == 1, "its use to be shown")
    before = status(nodes)["tokens"]
    httpx.delete(nodes.url(0, token))
    wait_until(lambda: status(nodes)["tokens"] < before, "it to be counted no more")
    assert not find_token(nodes, token)


@pytest.mark.parametrize("accept", FORMS)
def test_strangers_see_no_secrets(nodes: Cluster, accept: str) -> None:
    token = nodes.token()
    with Curl("-T", "-", nodes.url(0, token, "private-name"), pipe=True):
        wait_until(lambda: find(nodes, token, "waiting"), "the upload to be shown")

        def page() -> httpx.Response:
            return httpx.get(nodes[0].url, headers={"accept": accept})

        wait_until(lambda: id_of(token) in page().text, "the overview to be read again")
        answer = page()
        assert answer.headers["content-type"].startswith(FORMS[accept])
        assert token not in answer.text
        assert "private-name" not in answer.text


@pytest.mark.parametrize("accept", FORMS)
@pytest.mark.parametrize("auth", [("", SECRET), ("admin", SECRET), None])
def test_the_operator_sees_everything(nodes: Cluster, accept: str, auth: tuple[str, str] | None) -> None:
    token = nodes.token()
    headers = {"accept": accept} | ({} if auth else {"authorization": f"Bearer {SECRET}"})
    with Curl("-T", "-", nodes.url(0, token, "private-name"), pipe=True):
        wait_until(lambda: find(nodes, token, "waiting"), "the upload to be shown")
        for node in nodes.nodes:

            def is_whole(url: str = node.url) -> bool:
                page = httpx.get(url, headers=headers, auth=auth).text
                return id_of(token) in page and "private-name" in page

            wait_until(is_whole, "the reports of the token and of the other node's upload")


@pytest.mark.parametrize(
    ("node", "path", "secret"),
    [(node, path + ending, secret) for path in ("/", "/status") for node, ending, secret in ASKED],
)
def test_who_does_not_know_the_secret_is_asked_for_it(nodes: Cluster, node: int, path: str, secret: str | None) -> None:
    answer = httpx.get(nodes[node].url + path, auth=("", secret) if secret else None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="relay"'
    assert answer.text.count("\n") == 1


def test_a_node_that_is_killed_is_shown_as_lost(nodes: Cluster) -> None:
    other = NodeProcess("victim", nodes[0].redis_url, {"prefix": "status", "heartbeat": 0.2, "node_death": 2})
    other.wait_ready()

    def alive() -> bool | None:
        return next((node["alive"] for node in status(nodes)["nodes"] if node["node"] == other.id), None)

    wait_until(alive, "the node to be shown")
    other.process.kill()
    other.process.wait()
    wait_until(lambda: alive() is False, "the node to be shown as lost")

    def age() -> float:
        return next((float(node["age"]) for node in status(nodes)["nodes"] if node["node"] == other.id), 0.0)

    before = age()
    assert before >= 0.4, "three heartbeats, and what the last one took"
    wait_until(lambda: age() > before + 1, "its row to grow old")


@pytest.mark.parametrize("path", ["/", "/status", "/receive"])
def test_the_policy_of_a_page_allows_the_relays_own_files_only(nodes: Cluster, path: str) -> None:
    answer = httpx.get(nodes[0].url + path, headers={"accept": "text/html"})
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    assert not re.findall(r"<style|<script(?! src=)| style=| on[a-z]+=", answer.text), "nothing is inline"
    for source in re.findall(r'(?:src|href)="(page/[^"]*)"', answer.text):
        assert httpx.get(f"{nodes[0].url}/{source}").status_code == 200
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:|/)""", answer.text), "no outside resources, and any prefix"


def test_it_scans_no_keyspace(nodes: Cluster) -> None:
    """The cost grows with the number of nodes, not with that of transfers."""
    assert nodes.redis is not None
    token = nodes.token()

    def calls() -> dict[str, int]:
        assert nodes.redis is not None
        return {name: stats["calls"] for name, stats in nodes.redis.info("commandstats").items()}

    before = calls()
    wait_until(lambda: find_token(nodes, token), "an overview that was read since")
    grown = {name.removeprefix("cmdstat_") for name, count in calls().items() if count > before.get(name, 0)}
    assert "zcard" in grown
    assert not grown & {"scan", "keys", "hscan", "zscan", "sscan"}


def offer(nodes: Cluster, token: str) -> str:
    """Return what the button on the operator's page says that cancels the one transfer of a token."""
    headers, pattern = {"accept": "text/html"}, rf'name="which" value="({id_of(token)}/[^"]*)"'

    def found() -> list[str]:
        page = httpx.get(nodes[0].url + "/status", headers=headers, auth=("", SECRET)).text
        return re.findall(pattern, page)

    return wait_until(found, "the button")[0]


def press(nodes: Cluster, which: str, *, sure: str = "yes", auth: str = SECRET, **headers: str) -> httpx.Response:
    """Send to the second node what the button of the first one says."""
    form = {"which": which} | ({"sure": sure} if sure else {})
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(nodes[1].url + "/status/cancel", data=form, auth=("", auth) if auth else None, headers=sent)


def test_the_button_cancels_a_transfer_and_the_log_says_so(nodes: Cluster) -> None:
    token = nodes.token()
    with Curl("-T", "-", "-w", "%{http_code}", nodes.url(0, token, "my%20file"), pipe=True) as upload:
        which = offer(nodes, token)
        asked = press(nodes, which, sure="", accept="text/html", sec_fetch_site="same-origin")
        assert asked.status_code == 200
        assert "Cancel the transfer of <bdi>my file</bdi>?" in asked.text
        assert "form-action 'self'" in asked.headers["content-security-policy"]
        assert find(nodes, token, "waiting"), "it was only asked about"
        host = nodes[1].url.removeprefix("http://")
        answer = press(nodes, which, accept="text/plain", origin=f"http://{host}")
        assert (answer.status_code, answer.text) == (200, f"cancelled {id_of(token)} my%20file\n")
        assert upload.finish()[1].endswith(b"410")
    lines = [line for line in nodes[1].log().splitlines() if "relay.audit cancelled" in line and id_of(token) in line]
    assert len(lines) == 1
    for fact in ("by=operator", "name=my%20file", "address=127.0.0.1", "request=", "transfer="):
        assert fact in lines[0]
    assert press(nodes, which).status_code == 404, "it has ended"


def test_without_script_a_browser_is_sent_back_to_the_page(nodes: Cluster) -> None:
    token = nodes.token()
    with Curl("-T", "-", nodes.url(0, token, "x"), pipe=True) as upload:
        answer = press(nodes, offer(nodes, token), accept="text/html")
        assert (answer.status_code, answer.headers["location"]) == (303, "../status?admin")
        upload.finish()


def test_the_button_does_not_cancel_the_next_upload_of_the_name(nodes: Cluster) -> None:
    token = nodes.token()
    with Curl("-T", "-", nodes.url(0, token, "x"), pipe=True) as upload:
        which = offer(nodes, token)
        httpx.delete(nodes.url(0, token, "x"))
        upload.finish()
    with Curl("-T", "-", nodes.url(0, token, "x"), pipe=True):
        nodes.wait_state(token, "waiting")
        assert press(nodes, which).status_code == 404
        nodes.wait_state(token, "waiting")


def test_no_other_site_and_no_stranger_can_press_the_button(nodes: Cluster) -> None:
    """A browser adds the operator's password to whatever another site's page makes it send."""
    token = nodes.token()
    with Curl("-T", "-", nodes.url(0, token, "x"), pipe=True):
        which = offer(nodes, token)
        forged = which[:-1] + ("0" if which[-1] != "0" else "1")
        refused = [
            press(nodes, forged),
            press(nodes, ""),
            press(nodes, "x" * 10_000),
            press(nodes, which, sec_fetch_site="cross-site"),
            press(nodes, which, sec_fetch_site="same-site"),
            press(nodes, which, sec_fetch_site="none"),
            press(nodes, which, origin="https://evil.example"),
            press(nodes, which, origin="null"),
        ]
        assert [answer.status_code for answer in refused] == [403] * len(refused)
        assert {answer.text.count("\n") for answer in refused} == {1}
        assert press(nodes, which, auth="").status_code == 401
        assert press(nodes, which, auth="wrong").status_code == 401
        query = f"?which={which}&sure=yes"
        assert httpx.get(nodes[0].url + "/status/cancel" + query, auth=("", SECRET)).status_code == 405
        assert find(nodes, token, "waiting"), "none of these has cancelled it"


def test_without_an_admin_secret_nobody_is_an_operator(cluster: Cluster) -> None:
    answer = httpx.post(cluster[0].url + "/status/cancel", data={"which": "a/b/c/d", "sure": "yes"}, auth=("", "x"))
    assert answer.status_code == 401


def test_a_node_that_drains_says_so(nodes: Cluster) -> None:
    settings = {"prefix": "status", "heartbeat": 0.2, "node_death": 2, "drain_delay": 30}
    other = NodeProcess("leaver", nodes[0].redis_url, settings)

    def shown() -> dict[str, Any]:
        return next((node for node in status(nodes)["nodes"] if node["node"] == other.id), {})

    try:
        other.wait_ready()
        wait_until(shown, "the node to be shown")
        assert not shown()["draining"]
        assert 0 <= shown()["uptime"] < 60
        other.process.send_signal(signal.SIGTERM)
        wait_until(lambda: shown().get("draining"), "it to drain")
        assert shown()["alive"]
    finally:
        other.process.send_signal(signal.SIGTERM)  # a second one ends it at once
        other.stop()
    wait_until(lambda: not shown(), "it to have left")


def test_a_node_of_an_older_version_is_shown_beside_the_others(nodes: Cluster) -> None:
    assert nodes.redis is not None
    nodes.redis.zadd("status:nodes", {"older-0a1b2c": nodes.redis.time()[0]})
    old: dict[str, str | int] = {"host": "h", "version": "0.1.0", "started": 5, "waiting": 3, "complete": 1}
    nodes.redis.hset("status:node:older-0a1b2c", items=[part for pair in old.items() for part in pair])
    nodes.redis.expire("status:node:older-0a1b2c", 60)

    def shown() -> dict[str, Any]:
        return next((node for node in status(nodes)["nodes"] if node["node"] == "older-0a1b2c"), {})

    found = wait_until(shown, "it to be shown")
    assert (found["alive"], found["draining"], found["waiting"], found["complete"]) == (True, False, 3, 1)
    for accept in FORMS:
        assert "older-0a1b2c" in httpx.get(nodes[0].url, headers={"accept": accept}).text
    nodes.redis.zrem("status:nodes", "older-0a1b2c")
    nodes.redis.delete("status:node:older-0a1b2c")


def test_redis_is_shown_and_its_version_to_operators_only(nodes: Cluster) -> None:
    (server,) = status(nodes)["redis"]
    assert server["used"] > 100_000
    assert (server["policy"], server["evicts"]) == ("noeviction", False)
    assert server["version"].startswith(("Redis ", "Valkey "))
    strangers = httpx.get(nodes[0].url, headers={"accept": "application/json"}).json()
    assert "version" not in strangers["redis"][0]


def test_what_buffers_have_taken_is_not_what_the_client_has_taken(nodes: Cluster) -> None:
    """Its machine has room for a few bytes and reads none. Redis has acknowledged what was handed to the kernel."""
    assert nodes.redis is not None
    token, size = nodes.token(), 8 * 1024 * 1024
    with contextlib.closing(socket.socket()) as client, Curl("-T", "-", nodes.url(0, token, "x"), pipe=True) as upload:
        nodes.wait_state(token, "waiting")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", nodes[1].port))
        client.sendall(f"GET /{token}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        upload.write(b"x" * size)
        (key,) = wait_until(lambda: [key for key in nodes.keys("acks") if id_of(token) in key], "the stream")

        def handed_over() -> int:
            assert nodes.redis is not None
            ((entry, _),) = nodes.redis.xrevrange(key, count=1)  # type: ignore[misc]
            return int(bytes(entry).split(b"-")[0])  # type: ignore[arg-type]

        wait_until(lambda: handed_over() > 500_000, "the kernel to have taken some")
        wait_until(lambda: find(nodes, token, "streaming").get("downloader") == nodes[1].id, "it to be shown")
        wait_until(lambda: 0 < find(nodes, token, "streaming").get("delivered", 0) < 200_000, "what the client has")
        httpx.delete(nodes.url(0, token))  # otherwise the upload waits for its downloader to come back
    wait_until(lambda: not status(nodes)["transfers"], "it to be gone")
