"""Draining: what a node still does after SIGTERM, for how long, and what its clients are told."""

import contextlib
import secrets
import signal
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.support.cluster import CUT_OFF, Cluster, Curl, NodeProcess, assert_no_traceback, curl
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

Make = Callable[..., Cluster]


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[Make]:
    """Return a function that starts two nodes with short drain delays. The tests stop the first of them."""
    made: list[Cluster] = []

    def make(**settings: float) -> Cluster:
        prefix = f"drain-{secrets.token_hex(4)}"
        values = {"prefix": prefix, "drain_delay": 1, "drain_wait": 1, "drain_timeout": 60, **settings}
        nodes = [NodeProcess(name, redis_server.url, values) for name in ("stopping", "staying")]
        made.append(Cluster(nodes, redis_server.client(), prefix))
        return made[-1]

    yield make
    for cluster in made:
        for node in cluster.nodes:
            assert node.stop() == 0, node.log()
        assert_no_traceback(cluster.logs())
        assert not list(cluster.keys("node"))  # each node has deleted its own key
        assert not list(cluster.keys("inbox"))
        cluster.wait_clean()


def stop(cluster: Cluster) -> None:
    cluster[0].process.send_signal(signal.SIGTERM)


def wait_unready(cluster: Cluster) -> None:
    wait_until(lambda: not cluster[0].is_ready(), "the node to be unready")


@contextlib.contextmanager
def stream(cluster: Cluster, side: str, data: bytes, *options: str) -> Iterator[tuple[Curl, Curl]]:
    """Run a transfer whose `side` the stopping node serves. Yield uploader and downloader once `data` has arrived."""
    token = cluster.token()
    up, down = (0, 1) if side == "uploader" else (1, 0)
    with Curl("-T", "-", *options, cluster.url(up, token, "x"), pipe=True) as upload:
        wait_until(lambda: httpx.head(cluster.url(1, token, "x")).status_code == 200, "the upload")
        with Curl("-N", cluster.url(down, token, "x")) as download:
            upload.write(data)
            assert download.read(len(data)) == data
            stop(cluster)
            wait_unready(cluster)
            yield upload, download


def test_it_is_unready_at_once_and_serves_until_the_balancer_has_seen_it(make: Make) -> None:
    cluster = make(drain_delay=3)
    token = cluster.token()
    stop(cluster)
    wait_unready(cluster)
    assert httpx.get(cluster[0].url + "/healthz").status_code == 200
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        upload.write_all(b"taken in time")
        assert curl(cluster.url(1, token, "x")).stdout == b"taken in time"
        assert upload.finish() == (0, b"delivered 13 bytes\n")
    assert cluster[0].process.wait(20) == 0


def test_after_the_delay_it_takes_nothing_new(make: Make) -> None:
    cluster = make(drain_delay=0.2, drain_wait=60)
    token = cluster.token()
    with Curl("-T", "-", cluster.url(0, token, "old"), pipe=True) as upload:  # keeps the node from exiting
        cluster.wait_state(token, "waiting")
        stop(cluster)
        wait_until(lambda: httpx.post(cluster[0].url + "/token").status_code == 503, "new work to be refused")
        for answer in (
            httpx.put(cluster.url(0, token, "new"), content=b"data"),
            httpx.get(cluster.url(0, token, "new")),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert "another node" in answer.text
        upload.write_all(b"data")
        assert curl(cluster.url(1, token, "old")).stdout == b"data"
        assert upload.finish()[0] == 0
    assert cluster[0].process.wait(20) == 0


def test_clients_that_still_wait_are_told_to_try_again(make: Make) -> None:
    cluster = make()
    token = cluster.token()
    with (
        Curl("-i", "-T", "-", cluster.url(0, token, "up"), pipe=True) as upload,
        Curl("-i", cluster.url(0, token, "down") + "?wait=60") as download,
    ):
        cluster.wait_state(token, "waiting")
        stop(cluster)
        for client in (upload, download):
            _, answer = client.finish()
            assert b"503" in answer.splitlines()[0] + answer
            assert b"retry-after: 1" in answer
    assert cluster[0].process.wait(20) == 0
    assert httpx.head(cluster.url(1, token, "up")).status_code == 404


@pytest.mark.parametrize("side", ["uploader", "downloader"])
def test_a_stream_finishes(make: Make, side: str) -> None:
    cluster = make()
    with stream(cluster, side, b"before ") as (upload, download):
        wait_until(lambda: httpx.post(cluster[0].url + "/token").status_code == 503, "new work to be refused")
        upload.write_all(b"and after")
        assert download.finish() == (0, b"and after")
        assert upload.finish() == (0, b"delivered 16 bytes\n")
    assert cluster[0].process.wait(20) == 0


@pytest.mark.parametrize("side", ["uploader", "downloader"])
@pytest.mark.parametrize("second_signal", [None, signal.SIGTERM, signal.SIGINT])
def test_a_stream_that_does_not_finish_is_cut_off_on_both_sides(
    make: Make, side: str, second_signal: signal.Signals | None
) -> None:
    cluster = make(drain_timeout=3 if second_signal is None else 60)
    with stream(cluster, side, b"before", "-w", "%{http_code}") as (upload, download):
        if second_signal is not None:
            cluster[0].process.send_signal(second_signal)
        assert download.finish()[0] == CUT_OFF
        _, answer = upload.finish()
        assert answer.endswith(b"424"), answer
    assert cluster[0].process.wait(20) == 0
    assert "outcome=drained" in cluster.logs()


def test_a_node_without_clients_does_not_wait(make: Make) -> None:
    cluster = make(drain_delay=0.1, drain_wait=600, drain_timeout=600)
    stop(cluster)
    assert cluster[0].process.wait(20) == 0


def test_the_other_nodes_do_not_report_a_node_that_has_left_as_lost(make: Make) -> None:
    cluster = make()
    wait_until(lambda: "relay_nodes_alive 2.0" in httpx.get(cluster[1].url + "/metrics").text, "both to be alive")
    stop(cluster)
    assert cluster[0].process.wait(20) == 0
    wait_until(lambda: "node left: stopping-" in cluster[1].log(), "the farewell")
    assert "relay_nodes_alive 1.0" in httpx.get(cluster[1].url + "/metrics").text
    assert "nodes lost" not in cluster[1].log()
