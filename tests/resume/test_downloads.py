"""A download whose connection breaks goes on where it was, with clients that know nothing of this relay."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.resume.clients import Resumer, resumers
from tests.resume.conftest import SIZE
from tests.support.cluster import Cluster, Curl
from tests.support.cutting import Cut, CuttingProxy
from tests.support.wait import wait_until

#: After how many bytes each of the first connections is cut.
AFTER = [SIZE // 6] * 3
CHUNKED = ("-H", "Transfer-Encoding: chunked")


class Way:
    """A cluster, where the uploader goes, and the ports to which the downloader's connections go in turn."""

    def __init__(self, cluster: Cluster, upload: str, ports: list[int]) -> None:
        self.cluster = cluster
        self.upload = upload
        self.ports = ports


@pytest.fixture(params=["one node", "two nodes", "HAProxy", "nginx"])
def way(request: pytest.FixtureRequest) -> Way:
    if request.param in ("HAProxy", "nginx"):
        balancer = request.getfixturevalue(request.param.lower())
        return Way(request.getfixturevalue("behind"), balancer.url, [balancer.port])
    cluster = request.getfixturevalue("cluster")
    nodes = cluster.nodes[:1] if request.param == "one node" else cluster.nodes[1:]
    return Way(cluster, cluster[0].url, [node.port for node in nodes])


class Case:
    """One upload, and one client that downloads it through a proxy of its own, which cuts it off three times."""

    def __init__(self, way: Way, token: str, file: Path, cut: Cut, *, chunked: bool) -> None:
        self._proxy = CuttingProxy(way.ports, cut, AFTER)
        path = f"{token}/{secrets.token_hex(4)}"
        self._url = f"http://127.0.0.1:{self._proxy.port}/{path}?wait=20"
        self._upload = Curl(
            "-w", " %{http_code}", *(CHUNKED if chunked else ()), "-H", "Expect:", "-T", file, f"{way.upload}/{path}"
        )

    def close(self) -> None:
        self._upload.__exit__()
        self._proxy.close()

    def run(self, client: Resumer, target: Path) -> tuple[str, int, tuple[int, bytes]]:
        """Return what the client said, how many cuts are left, and how the upload ended."""
        said = client.download(self._url, target)
        return said, self._proxy.cuts_left, self._upload.finish()


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("cut", Cut)
def test_a_download_that_is_cut_off_three_times_arrives_whole(
    way: Way, cut: Cut, big_file: Path, tmp_path: Path, closing: ExitStack
) -> None:
    token, runs = way.cluster.token(), {}
    with ThreadPoolExecutor() as pool:
        for client in resumers():
            for chunked in [False, True] if cut in client.without_length else [False]:
                case = Case(way, token, big_file, cut, chunked=chunked)
                closing.callback(case.close)
                target = tmp_path / f"{client.name}-{chunked}"
                runs[target] = pool.submit(case.run, client, target)
        results = {target.name: done.result() for target, done in runs.items()}
    assert results == dict.fromkeys(results, ("", 0, (0, f"delivered {SIZE} bytes\n 200".encode())))
    assert [target.name for target in runs if target.read_bytes() != big_file.read_bytes()] == []
    wait_until(lambda: not way.cluster.left_over(), "no key to be left over", timeout=40)
