"""A download whose connection breaks goes on where it was, with clients that know nothing of this relay."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.resume.clients import SILENCE, Resumer, resumers
from tests.resume.conftest import MIB, SIZE
from tests.support.cluster import Cluster, Curl
from tests.support.cutting import Cut, CuttingProxy

#: After how many bytes each of the first connections is cut. A reset takes from the client what its kernel has received
#: and the client has not read: on a busy machine that may be all of it. With what the node's kernel has not sent, which
#: is 4 MB at most, this must be less than the node keeps.
AFTER = {Cut.FIN: SIZE // 6, Cut.RST: 2 * MIB, Cut.SILENT: SIZE // 6}
CUTS = 3
#: Seconds of silence after which a client gives up the connection that a proxy has silently stopped to forward.
NOTICED = 5
CHUNKED = ("-H", "Transfer-Encoding: chunked")


class Way:
    """A cluster, where the uploader goes, the ports to which the downloader's connections go in turn, and the file."""

    def __init__(self, cluster: Cluster, upload: str, ports: list[int], file: Path) -> None:
        self.cluster = cluster
        self.upload = upload
        self.ports = ports
        self.file = file


@pytest.fixture(params=["one node", "two nodes", "HAProxy", "nginx"])
def way(request: pytest.FixtureRequest) -> Way:
    if request.param in ("HAProxy", "nginx"):
        balancer = request.getfixturevalue(request.param.lower())
        return Way(
            request.getfixturevalue("behind"), balancer.url, [balancer.port], request.getfixturevalue("larger_file")
        )
    cluster = request.getfixturevalue("cluster")
    nodes = cluster.nodes[:1] if request.param == "one node" else cluster.nodes[1:]
    return Way(cluster, cluster[0].url, [node.port for node in nodes], request.getfixturevalue("big_file"))


class Case:
    """One upload, and one client that downloads it through a proxy of its own, which cuts it off three times."""

    def __init__(self, way: Way, token: str, cut: Cut, *, chunked: bool) -> None:
        self._proxy = CuttingProxy(way.ports, cut, [AFTER[cut]] * CUTS)
        self._silence = NOTICED if cut is Cut.SILENT else SILENCE
        path = f"{token}/{secrets.token_hex(4)}"
        self._url = f"http://127.0.0.1:{self._proxy.port}/{path}?wait=20"
        options = ["-w", " %{http_code}", "-H", "Expect:", *(CHUNKED if chunked else ())]
        self._upload = Curl(*options, "-T", way.file, f"{way.upload}/{path}")

    def close(self) -> None:
        self._upload.__exit__()
        self._proxy.close()

    def run(self, client: Resumer, target: Path) -> tuple[str, int, tuple[int, bytes]]:
        """Return what the client said, how many cuts are left, and how the upload ended."""
        said = client.download(self._url, target, self._silence)
        return said, self._proxy.cuts_left, self._upload.finish()


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("cut", Cut)
def test_a_download_that_is_cut_off_three_times_arrives_whole(
    way: Way, cut: Cut, tmp_path: Path, closing: ExitStack
) -> None:
    token, runs = way.cluster.token(), {}
    with ThreadPoolExecutor() as pool:
        for client in resumers():
            for chunked in [False, True] if cut in client.without_length else [False]:
                case = Case(way, token, cut, chunked=chunked)
                closing.callback(case.close)
                target = tmp_path / f"{client.name}-{chunked}"
                runs[target] = pool.submit(case.run, client, target)
        results = {target.name: done.result() for target, done in runs.items()}
    sent = way.file.read_bytes()
    assert results == dict.fromkeys(results, ("", 0, (0, f"delivered {len(sent)} bytes\n 200".encode())))
    assert [target.name for target in runs if target.read_bytes() != sent] == []
    way.cluster.wait_clean()
