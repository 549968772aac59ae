"""Every line of `Looking into Redis` in deploy/README.md, run as it stands there, against a cluster at work."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import CUT_OFF, Cluster, Curl, NodeProcess, id_of
from tests.support.pages import OPERATORS, shell_blocks
from tests.support.redis import RedisServer, servers
from tests.support.wait import wait_until


def recipes() -> dict[str, str]:
    """The lines, by the first words of the question above them."""
    (block,) = shell_blocks(OPERATORS, "Looking into Redis")
    found = {}
    for part in block.strip().split("\n\n"):
        question, _, lines = part.partition("\n")
        found[re.split(r"[?.:,]", question.removeprefix("# "))[0]] = lines
    return found


RECIPES = recipes()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Two nodes on a Redis of their own, because the page's lines have the default prefix."""
    if shutil.which("redis-cli") is None or not (found := servers()):
        pytest.skip("no redis-cli and redis-server on PATH: the recipes for redis-cli were not tested")
    server = RedisServer(found[max(found)])
    cluster = Cluster([NodeProcess(name, server.url) for name in ("a", "b")], server.client(), "relay")
    yield cluster
    cluster.stop()
    server.stop()


@pytest.fixture
def streams(nodes: Cluster) -> Iterator[tuple[str, Curl, Curl]]:
    """The token of an upload `big file` at node a that streams to node b, after 1000 bytes."""
    token = nodes.token()
    with Curl("-T", "-", "-w", "%{http_code}", nodes.url(0, token, "big%20file"), pipe=True) as upload:
        nodes.wait_state(token, "waiting")
        with Curl("-N", nodes.url(1, token, "big%20file")) as download:
            upload.write(b"x" * 1000)
            assert download.read(1000) == b"x" * 1000
            yield token, upload, download
    nodes.wait_clean()


def run(nodes: Cluster, question: str, token: str, name: str = "big%20file") -> str:
    """What the lines below a question print."""
    assert nodes.redis is not None
    port = nodes.redis.connection_pool.connection_kwargs["port"]
    script = f"""
        redis-cli() {{ command redis-cli -p {port} "$@"; }}
        set -eu -o pipefail
        T={id_of(token)} NAME={name}
        NODE=$(redis-cli ZRANGE relay:nodes 0 0)
        ID=$(redis-cli HGET "relay:transfer:{{$T}}:$NAME" id)
        {RECIPES[question]}
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def pairs(output: str) -> dict[str, str]:
    lines = output.splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def test_every_question_is_tested() -> None:
    tested = set(re.findall(r'run\(nodes, "(.*?)"', Path(__file__).read_text()))
    assert set(RECIPES) == tested


def test_who_is_transferring(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    token, *_ = streams
    assert run(nodes, "Who is transferring", token).split() == [f"relay:transfer:{{{id_of(token)}}}:big%20file"]


def test_who_holds_this_name(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    holder = pairs(run(nodes, "Who holds this name", streams[0]))
    assert holder["state"] == "streaming"
    assert (holder["uploader"], holder["downloader"]) == (nodes[0].id, nodes[1].id)


def test_how_far(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    wait_until(lambda: "\nto\n1000\n" in run(nodes, "How far is it", streams[0]), "the ack")
    lines = run(nodes, "How far is it", streams[0]).splitlines()
    assert lines[lines.index("last-generated-id") + 1] == "1000-0"
    assert lines[-3:] == ["1000-0", "to", "1000"]


def test_stuck(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    wait_until(lambda: run(nodes, "What is stuck", streams[0]).startswith("1000-0 relay:acks:"), "the ack")


def test_waiting(nodes: Cluster) -> None:
    tokens = [nodes.token() for _ in range(2)]
    with (
        Curl("-T", "-", nodes.url(0, tokens[0], "x"), pipe=True),
        Curl("-T", "-", nodes.url(1, tokens[1], "x"), pipe=True),
    ):
        for token in tokens:
            nodes.wait_state(token, "waiting")
        lines = run(nodes, "Who has waited longest for a downloader", tokens[0]).splitlines()
        assert sorted(line.split()[2] for line in lines) == sorted(f"relay:transfer:{{{id_of(t)}}}:x" for t in tokens)
        assert [line.split()[1] for line in lines] == ["waiting"] * 2
        assert lines == sorted(lines)


def test_nodes(nodes: Cluster) -> None:
    output = run(nodes, "Which nodes are alive", nodes.token())
    assert {nodes[0].id, nodes[1].id, "host", "waiting"} <= set(output.splitlines())


def test_what_clients_of_a_node_took(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    output = run(nodes, "What did this node's clients take", streams[0])
    history, draining = output.splitlines()
    assert all(part.isdecimal() for part in history.split())
    assert draining == "0"


def test_a_token(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    left, _, fields = run(nodes, "How long does this token live (in ms)", streams[0]).partition("\n")
    assert 0 < int(left) <= 3_600_000
    assert {"uses", "transfer:big%20file"} <= pairs(fields).keys()


def test_tokens(nodes: Cluster) -> None:
    token = nodes.token()
    wait_until(lambda: id_of(token) in run(nodes, "How many tokens are there", token), "the token to be listed")


def test_memory(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    output = run(nodes, "How much memory does this transfer take in Redis", streams[0])
    assert int(output.partition("\n")[0]) > 0
    assert "used_memory_human:" in output


def test_end_a_stream(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    token, upload, download = streams
    run(nodes, "End this transfer", token)
    assert download.finish()[0] == CUT_OFF
    assert upload.finish()[1].endswith(b"424")


def test_end_a_wait(nodes: Cluster) -> None:
    token = nodes.token()
    with Curl("-T", "-", "-w", "%{http_code}", nodes.url(0, token, "x"), pipe=True) as upload:
        nodes.wait_state(token, "waiting")
        run(nodes, "End this transfer", token, "x")
        assert upload.finish()[1].endswith(b"503")


def test_revoke(nodes: Cluster, streams: tuple[str, Curl, Curl]) -> None:
    token, upload, download = streams
    run(nodes, "Revoke this token", token)
    assert download.finish()[0] == CUT_OFF
    assert upload.finish()[1].endswith(b"401")
