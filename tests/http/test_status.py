"""`GET /`: the page, for strangers and for the operator, in public and in private."""

import re
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
