"""What one token may have at a time and altogether, and how long a transfer may last."""

import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.support.cluster import CUT_OFF, Cluster, Curl, NodeProcess, curl
from tests.support.redis import RedisServer

SETTINGS: dict[str, object] = {"token_names": 2, "token_bytes": 1000, "max_duration": 2, "upload_wait": 60}


@pytest.fixture(scope="module")
def limited(redis_server: RedisServer) -> Iterator[Cluster]:
    prefix = f"limits-{secrets.token_hex(4)}"
    nodes = [NodeProcess(name, redis_server.url, SETTINGS | {"prefix": prefix}) for name in ("a", "b")]
    cluster = Cluster(nodes, redis_server.client(), prefix)
    yield cluster
    cluster.stop()
    assert not cluster.left_over()


@pytest.fixture
def token(limited: Cluster) -> str:
    return limited.token()


def test_a_token_has_so_many_uploads_at_a_time(limited: Cluster, token: str) -> None:
    with (
        Curl("-T", "-", limited.url(0, token, "a"), pipe=True) as one,
        Curl("-T", "-", limited.url(1, token, "b"), pipe=True),
    ):
        limited.wait_state(token, "waiting", 2)
        answer = httpx.put(limited.url(1, token, "c"), content=b"x")
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "5"
        assert "another token" in answer.text
        assert httpx.put(limited.url(1, token, "b"), content=b"x").status_code == 409  # the better reason
        assert httpx.get(limited.url(1, token, "d") + "?wait=1").status_code == 429
        assert httpx.get(limited.url(1, token, "d") + "?wait=0").status_code == 404
        one.write_all(b"data")
        assert httpx.get(limited.url(1, token, "a")).content == b"data"
        assert one.finish()[0] == 0
        with Curl("-T", "-", limited.url(1, token, "c"), pipe=True):
            limited.wait_state(token, "waiting", 2)


def test_downloads_that_wait_count_too(limited: Cluster, token: str) -> None:
    with Curl(limited.url(0, token, "a") + "?wait=60"), Curl(limited.url(1, token, "b") + "?wait=60"):
        while httpx.get(limited.url(0, token, "c") + "?wait=0.1").status_code != 429:
            pass
        assert httpx.put(limited.url(1, token, "c"), content=b"x").status_code == 429


def transfer(cluster: Cluster, token: str, data: bytes) -> tuple[int, bytes]:
    """The uploader's curl: its exit status, what it printed, and the status."""
    with Curl("-T", "-", "-w", "%{http_code}", cluster.url(0, token, "x"), pipe=True) as source:
        cluster.wait_state(token, "waiting")
        with Curl("-fo", "/dev/null", cluster.url(1, token, "x")) as download:
            source.write_all(data)
            answer = source.finish()
            assert (download.finish()[0] == 0) is answer[1].endswith(b"200")
    return answer


def test_a_token_carries_so_many_bytes(limited: Cluster, token: str) -> None:
    assert transfer(limited, token, b"x" * 600)[1].endswith(b"200")
    answer = httpx.put(limited.url(0, token, "x"), content=b"x" * 500)
    assert answer.status_code == 429
    assert "all but 400 of the bytes" in answer.text
    said = transfer(limited, token, b"x" * 500)[1]  # of a length that nobody knew
    assert said.endswith(b"413")
    assert b"at most 400 bytes" in said
    assert transfer(limited, token, b"x" * 400)[1].endswith(b"200")
    answer = httpx.put(limited.url(0, token, "x"), content=b"")
    assert answer.status_code == 429


def test_a_transfer_lasts_so_long(limited: Cluster, token: str) -> None:
    with Curl("-T", "-", "-w", "%{http_code}", limited.url(0, token, "x"), pipe=True) as source:
        limited.wait_state(token, "waiting")
        with Curl("-N", limited.url(1, token, "x")) as download:
            source.write(b"a")
            assert download.read(1) == b"a"
            assert download.finish()[0] == CUT_OFF
        said = source.finish()[1]
        assert said.endswith(b"413")
        assert b"2 s at most" in said
    assert any("outcome=too_long" in node.log() for node in limited.nodes)


def test_a_wait_may_be_longer(limited: Cluster, token: str) -> None:
    with Curl("-T", "-", limited.url(0, token, "x"), pipe=True) as source:
        source.write_all(b"data")
        limited.wait_state(token, "waiting")
        assert curl(limited.url(0, token, "y") + "?wait=2.5").returncode == 0
        assert curl(limited.url(0, token, "x")).stdout == b"data"
        assert source.finish()[0] == 0
