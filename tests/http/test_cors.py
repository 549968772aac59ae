"""CORS: pages of other origins have no access unless the operator allows their origin."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.cluster import Cluster, NodeProcess
from tests.support.raw import raw

PAGE = "https://page.example"


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Cluster]]:
    """Start one node for each kind of setting: no origins, two origins, and all origins."""
    settings = {"none": "", "two": f"{PAGE},http://localhost:8080", "all": "*"}
    nodes = {
        name: Cluster(
            [NodeProcess(name, settings={"cors_origins": origins, "upload_wait": 0.2, "download_wait": 0})],
            None,
            "relay",
        )
        for name, origins in settings.items()
    }
    yield nodes
    for node in nodes.values():
        node.stop()


def preflight(cluster: Cluster, path: str, method: str, origin: str = PAGE) -> httpx.Response:
    headers = {"origin": origin, "access-control-request-method": method}
    return httpx.options(cluster[0].url + path, headers=headers | {"access-control-request-headers": "content-type"})


@pytest.mark.parametrize(
    ("node", "origin", "allowed"),
    [
        ("none", PAGE, None),
        ("two", PAGE, PAGE),
        ("two", "http://localhost:8080", "http://localhost:8080"),
        ("two", "http://localhost", None),
        ("two", "https://page.example.evil.example", None),
        ("two", "null", None),
        ("all", "https://anybody.example", "*"),
    ],
)
def test_which_origins_are_allowed(nodes: dict[str, Cluster], node: str, origin: str, allowed: str | None) -> None:
    cluster = nodes[node]
    token = cluster.token()
    answers = [
        httpx.post(cluster[0].url + "/token", headers={"origin": origin}),
        httpx.get(cluster.url(0, token, "x"), headers={"origin": origin}),  # 404
        httpx.put(cluster.url(0, token, "x"), content=b"x", headers={"origin": origin}),  # 504
        preflight(cluster, f"/{token}/x", "PUT", origin),
    ]
    for answer in answers:
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert "access-control-allow-credentials" not in answer.headers
        assert ("origin" in answer.headers.get("vary", "").lower()) is (node == "two")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["relay-node"].startswith(node)
    assert ("access-control-allow-methods" in answers[-1].headers) is (allowed is not None)


def test_a_preflight_says_what_may_be_sent(nodes: dict[str, Cluster]) -> None:
    answer = preflight(nodes["two"], "/" + "A" * 30 + "/x", "PUT")
    assert answer.status_code == 204
    assert "PUT" in answer.headers["access-control-allow-methods"].split(", ")
    assert "Content-Type" in answer.headers["access-control-allow-headers"]


def test_a_page_can_read_the_body_and_the_headers_of_a_download(nodes: dict[str, Cluster]) -> None:
    """A download has a test of its own because its response has more headers than others."""
    cluster = nodes["all"]
    token = cluster.token()
    with raw(cluster[0].url) as up:
        up.send(f"PUT /{token}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na".encode())
        answer = httpx.get(cluster.url(0, token, "x") + "?wait=20", headers={"origin": PAGE})
    assert answer.content == b"a"
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {"relay-node", "content-disposition"} <= set(exposed)
