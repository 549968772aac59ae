"""Spans of transfers, exported by real nodes to a collector: what they say, and that nothing depends on it."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from relay import __version__
from tests.support.cluster import Cluster, Curl, alone, curl, id_of, over_redis
from tests.support.collector import Collector, Got
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.resumable import Uploader

TRACE, OTHER = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "b7ad6b7169203331"


def traced(trace: str, flags: str = "01") -> tuple[str, ...]:
    """Return what makes curl say that its request is a part of a trace."""
    return ("-H", f"traceparent: 00-{trace}-{SPAN}-{flags}")


def sides(spans: list[Got]) -> tuple[list[Got], list[Got]]:
    """Return the spans of uploads, and those of downloads."""
    uploads = [span for span in spans if span.attributes["relay.side"] == "upload"]
    return uploads, [span for span in spans if span not in uploads]


def transfer(cluster: Cluster, token: str, name: str) -> None:
    """Transfer five bytes through the first node."""
    with Curl("-T", "-", cluster.url(0, token, name), pipe=True) as upload:
        upload.write_all(b"12345")
        assert curl(cluster.url(0, token, name) + "?wait=20").stdout == b"12345"
        assert upload.finish()[0] == 0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer, collector: Collector) -> Iterator[Cluster]:
    with contextlib.ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
            patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
            cluster = running.enter_context(over_redis(redis_server, "ab", log_format="json"))
        yield cluster
    # Exported at the very end, and without any secret.
    assert all(token.encode() not in body for token in cluster.secrecy.tokens for body in collector.bodies)


def test_each_side_has_a_span_in_the_trace_of_its_client(
    cluster: Cluster, collector: Collector, tmp_path: Path
) -> None:
    token, file = cluster.token(), tmp_path / "file"
    file.write_bytes(b"12345")
    link = httpx.post(cluster.url(0, token, "a%20b") + "/link").text.strip()
    options = ("-H", "tracestate: vendor=value", "-H", "X-Request-ID: up", *traced(TRACE))
    with Curl("-T", file, *options, cluster.url(0, token, "a%20b")) as upload:
        assert curl(*traced(OTHER), f"{cluster[1].url}/{link}/a%20b?wait=20").stdout == b"12345"
        assert upload.finish()[0] == 0
    (up,), (down,) = sides(collector.wait(2, relay_token_id=id_of(token)))
    for span, side, trace, method in ((up, "upload", TRACE, "PUT"), (down, "download", OTHER, "GET")):
        assert (span.trace, span.parent, span.kind, span.status) == (trace, SPAN, "SERVER", "OK")
        assert span.name == f"{method} /{{token}}/{{name}}"
        about = span.attributes
        assert (about["relay.side"], about["relay.outcome"], about["http.response.status_code"]) == (
            side,
            "complete",
            200,
        )
        assert (about["file.name"], about["file.size"], about["relay.delivered"]) == ("a%20b", 5, 5)
        assert about["url.path"] == f"/{id_of(token)}…/a%20b"
        assert about["client.address"] == "127.0.0.1"
        times = [span.begin, *(time for _, time, _ in span.events), span.end]
        assert times == sorted(times)
    # The id of the transfer ties both sides, which are in two traces and on two nodes.
    assert up.attributes["relay.transfer.id"] == down.attributes["relay.transfer.id"]
    assert (up.state, up.attributes["relay.request.id"], up.attributes["http.request.body.size"]) == (
        "vendor=value",
        "up",
        5,
    )
    assert (up.happened(), down.happened()) == (["claimed", "joined"], ["joined"])
    assert up.events[1][2] == {"relay.leg": 0, "relay.start": 0, "relay.peer": cluster[1].id}
    expected = {"service.name": "relay", "service.version": __version__, "deployment.environment.name": "test"}
    assert expected.items() <= up.resource.items()
    assert [span.resource["service.instance.id"] for span in (up, down)] == [cluster[0].id, cluster[1].id]


def test_without_a_parent_the_log_has_the_trace_all_the_same(cluster: Cluster, collector: Collector) -> None:
    token = cluster.token()
    # An upload that nobody takes: its client gives it up.
    with Curl("-T", "-", cluster.url(0, token, "x"), pipe=True):
        cluster.wait_state(token, "waiting")
    (span,) = collector.wait(1, relay_token_id=id_of(token))
    assert (span.parent, span.status, span.message) == ("", "ERROR", "uploader_gone")
    assert span.attributes["error.type"] == "uploader_gone"
    assert "http.response.status_code" not in span.attributes
    lines = [json.loads(line) for line in cluster.logs().splitlines() if line]
    ended = [line for line in lines if line["message"] == "ended" and line["token"] == id_of(token)]
    assert [line["trace"] for line in ended] == [span.trace]


def test_what_the_client_does_not_sample_is_not_exported(cluster: Cluster, collector: Collector) -> None:
    token = cluster.token()
    with Curl("-T", "-", *traced(TRACE, "00"), cluster.url(0, token, "x"), pipe=True) as upload:
        upload.write_all(b"12345")
        curl(*traced(TRACE), cluster.url(0, token, "x") + "?wait=20")
        upload.finish()
    (span,) = collector.wait(1, relay_token_id=id_of(token))
    assert span.attributes["relay.side"] == "download"


def test_a_downloader_that_comes_back_is_a_leg_more(cluster: Cluster, collector: Collector) -> None:
    token = cluster.token()
    url = cluster.url(0, token, "x")
    with Curl("-T", "-", "-H", "Expect:", url, pipe=True) as upload:
        upload.write(b"12345")
        with Curl("-N", cluster.url(1, token, "x") + "?wait=20") as download:
            assert download.read(5) == b"12345"
        cluster.wait_state(token, "waiting")
        with Curl("-N", "-r", "3-", cluster.url(1, token, "x")) as download:
            assert download.read(2) == b"45"
            upload.write_all(b"678")
            assert download.finish() == (0, b"678")
        assert upload.finish()[0] == 0
    (up,), (broken, back) = sides(collector.wait(3, relay_token_id=id_of(token)))
    assert len({span.attributes["relay.transfer.id"] for span in (up, broken, back)}) == 1
    assert (up.status, broken.status, back.status) == ("OK", "UNSET", "OK")
    assert up.happened() == ["claimed", "joined", "interrupted", "joined"]
    assert (broken.happened(), back.happened()) == (["joined", "left"], ["joined"])
    assert up.events[2][2]["relay.by"] == "download"
    assert up.events[3][2] == {"relay.leg": 1, "relay.start": 3, "relay.peer": cluster[1].id}
    assert (back.attributes["relay.delivered"], back.attributes["http.response.body.size"]) == (8, 5)
    assert "relay.outcome" not in broken.attributes


def test_each_request_of_a_resumable_upload_has_a_span(cluster: Cluster, collector: Collector) -> None:
    token, data = cluster.token(), b"0123456789"
    client = Uploader([cluster[0].url], f"/{token}/x", data, is_careful=True, piece=6)
    with Curl(cluster.url(1, token, "x") + "?wait=20") as download:
        client.run()
        assert download.finish() == (0, data)
    cluster.secrecy.tokens.append(client.location.rpartition("/")[2])  # which must be in no span either
    (create, first, last), (down,) = sides(collector.wait(4, relay_token_id=id_of(token)))
    assert create.happened() == ["claimed", "left"]
    assert (first.happened()[0], first.happened()[-1]) == ("returned", "left")
    assert last.happened()[0] == "returned"
    assert [span.status for span in (create, first, last, down)] == ["UNSET", "UNSET", "OK", "OK"]
    assert last.name == "PATCH /{token}/{name}/{upload}"
    assert "interrupted" in down.happened()
    assert down.happened()[-1] == "joined"


def test_a_collector_that_hangs_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector(hangs=True) as collector:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.url + "/v1/traces")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        with alone() as cluster:
            token = cluster.token()
            for number in range(10):  # more than the queue takes
                transfer(cluster, token, str(number))
            assert collector.requests
            cluster[0].process.send_signal(signal.SIGTERM)
            # By itself, OpenTelemetry would wait for a minute.
            assert cluster[0].process.wait(timeout=25) == 0
        assert collector.requests == 1


def test_a_collector_that_is_away_costs_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    with alone() as cluster:
        transfer(cluster, cluster.token(), "x")
    said = [line for line in cluster.logs().splitlines() if "relay.telemetry" in line]
    assert "spans are exported to http://127.0.0.1:" in said[0]
    assert any("OpenTelemetry: " in line and "WARNING" in line for line in said[1:])
    assert len(said) <= 4  # each kind of complaint once
    assert "hunter2" not in cluster.logs()


def imported(log: str) -> set[str]:
    """Return the modules that a process has imported, by what Python says of each if PYTHONPROFILEIMPORTTIME is set."""
    return {line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")}


def test_without_an_endpoint_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "relay")
    with alone() as cluster:
        transfer(cluster, cluster.token(), "x")
    # redis-py imports parts of OpenTelemetry by itself if it is installed.
    command = [sys.executable, "-c", "import redis.asyncio"]
    theirs = imported(subprocess.run(command, capture_output=True, text=True, check=True).stderr)
    ours = imported(cluster.logs()) - theirs
    assert "relay.operations.telemetry" in ours
    assert not [name for name in ours if name.startswith(("opentelemetry", "relay.operations.spans", "google"))]
