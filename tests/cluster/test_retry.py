"""`curl --retry` begins a file again at its start, but cannot do that with a pipe."""

import os
from pathlib import Path

from tests.support.cluster import Cluster, Curl

MIB = 1024 * 1024
RETRY = ("--retry", "2", "--retry-delay", "1", "-w", "%{http_code} %{num_connects}")


def leave_in_the_middle(cluster: Cluster, token: str) -> None:
    """Download the beginning, and go."""
    with Curl("-N", "--limit-rate", "1M", cluster.url(1, token, "x") + "?wait=20") as download:
        assert download.read(9)
        download.process.kill()
        download.process.wait()


def test_a_pipe_of_which_something_has_arrived_is_not_sent_again(cluster: Cluster, token: str) -> None:
    """RFC 4918 section 11.4: 424, which curl does not retry. With 502, a second download got the rest only."""
    with Curl(*RETRY, "-T", "-", cluster.url(0, token, "x"), pipe=True) as upload:
        upload.write(b"the beginning")
        leave_in_the_middle(cluster, token)
        status, said = upload.finish()
    assert status == 0
    assert said.endswith(b"upload it again.\n424 1")


def test_a_file_is_sent_again_from_its_start(cluster: Cluster, token: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(30 * MIB))
    with Curl(*RETRY, "-T", source, cluster.url(0, token, "x")) as upload:
        leave_in_the_middle(cluster, token)
        with Curl("-o", target, cluster.url(1, token, "x") + "?wait=20") as download:
            assert download.finish()[0] == 0
        assert b"delivered 31457280 bytes" in upload.finish()[1]
    assert target.read_bytes() == source.read_bytes()
