"""Named secrets: who may make tokens, what these tokens may do, and a file that changes while the node runs."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from relay.secrets_file import secret_digest
from tests.support.cluster import CUT_OFF, Cluster, Curl, alone, id_of, over_redis
from tests.support.redis import RedisServer
from tests.support.wait import wait_until

TEXT = f"""
    [alice]
    digest = "{secret_digest("secret of alice")}"
    [gone]
    digest = "{secret_digest("secret of gone")}"
    expires = 2020-01-01
    [small]
    digest = "{secret_digest("secret of small")}"
    names = 1
    bytes = 1000
    upload = 600
    [short]
    digest = "{secret_digest("secret of short")}"
    life = 3
    [slow]
    digest = "{secret_digest("secret of slow")}"
    rate = "2/hour"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "secrets.toml"
    file.write_text(TEXT)
    return file


@pytest.fixture(params=["embedded", "Redis"])
def cluster(file: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    settings: dict[str, object] = {"token_secrets_file": file, "token_secret": "plain-secret", "failure_rate": ""}
    settings["admin_secret"] = "operators-secret"
    if request.param == "embedded":
        with alone(**settings) as cluster:
            yield cluster
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        with over_redis(server, "ab", **settings) as cluster:
            yield cluster
    assert "secret of" not in cluster.logs()


def post(cluster: Cluster, who: str, **headers: str) -> httpx.Response:
    return httpx.post(cluster[0].url + "/token", headers={"Authorization": f"Bearer {who}", **headers})


def token_of(cluster: Cluster, name: str) -> str:
    answer = post(cluster, f"secret of {name}")
    assert answer.status_code == 200, answer.text
    return answer.text.strip()


def put(cluster: Cluster, token: str, size: int, name: str = "x") -> int:
    return httpx.put(cluster.url(0, token, name), content=b"x" * size).status_code


def carry(cluster: Cluster, token: str, data: bytes, name: str = "x") -> bytes:
    """Upload data of unknown length, and download it. Return what curl says of the upload."""
    with (
        Curl("-w", " %{http_code}", "-T", "-", cluster.url(0, token, name), pipe=True) as upload,
        Curl("-N", cluster.url(1, token, name) + "?wait=20") as download,
    ):
        upload.write_all(data)
        said = upload.finish()[1]
        download.finish()
    return said


def test_who_may_make_tokens(cluster: Cluster) -> None:
    for right in ("secret of alice", "plain-secret"):
        assert post(cluster, right).status_code == 200
    for wrong in ("secret of gone", "alice", secret_digest("secret of alice")):
        assert post(cluster, wrong).status_code == 401
    assert httpx.post(cluster[0].url + "/token").status_code == 401


def test_the_log_and_the_metrics_say_whose_secret_it_was(cluster: Cluster) -> None:
    token = token_of(cluster, "alice")
    made = "token made secret=alice request="
    wait_until(lambda: [line for line in cluster.logs().splitlines() if made in line and id_of(token) in line], made)
    url, series = cluster[0].url + "/metrics", 'relay_tokens_made_by_secret_total{secret="alice"} 1.0'
    assert series in httpx.get(url, headers={"Authorization": "Bearer operators-secret"}).text
    assert "alice" not in httpx.get(url).text


def test_a_token_has_its_own_largest_upload(cluster: Cluster) -> None:
    token = token_of(cluster, "small")
    assert put(cluster, token, 601) == 413
    assert b" 413" in carry(cluster, token, b"x" * 601)


def test_a_token_has_its_own_maximum_of_names(cluster: Cluster) -> None:
    token = token_of(cluster, "small")
    with Curl("-T", "-", cluster.url(0, token, "one"), pipe=True):
        cluster.wait_state(token, "waiting")
        assert put(cluster, token, 1, "two") == 429


def test_a_token_has_its_own_maximum_of_bytes(cluster: Cluster) -> None:
    small, free = token_of(cluster, "small"), token_of(cluster, "alice")
    assert carry(cluster, small, b"x" * 600).endswith(b" 200")
    assert put(cluster, small, 600) == 429
    assert b" 413" in carry(cluster, small, b"x" * 600)
    assert carry(cluster, free, b"x" * 5000).endswith(b" 200")


def test_a_token_ends_when_its_secret_says(cluster: Cluster) -> None:
    """However often it is used, and while it streams."""
    token = token_of(cluster, "short")
    with (
        Curl("-w", " %{http_code}", "-T", "-", cluster.url(0, token, "x"), pipe=True) as upload,
        Curl("-N", cluster.url(1, token, "x") + "?wait=20") as download,
    ):
        upload.write(b"some")
        assert download.read(4) == b"some"
        left = httpx.get(cluster.url(0, token), headers={"Accept": "application/json"}).json()["expires_in"]
        assert left <= 3
        wait_until(lambda: httpx.get(cluster.url(0, token)).status_code == 401, "the token to end")
        wait_until(lambda: download.process.poll() is not None, "both sides to be told")
        assert b" 401" in upload.finish()[1]
        assert download.finish()[0] == CUT_OFF


def test_the_life_of_a_token_is_told_when_it_is_made(cluster: Cluster) -> None:
    assert post(cluster, "secret of short", Accept="application/json").json()["expires_in"] == 3
    assert post(cluster, "secret of alice", Accept="application/json").json()["expires_in"] == 1200


def test_the_rate_of_a_secret(cluster: Cluster) -> None:
    assert [post(cluster, "secret of slow").status_code for _ in range(3)] == [200, 200, 429]
    assert "with this secret" not in post(cluster, "secret of alice").text


@pytest.mark.parametrize("told", [True, False], ids=["SIGHUP", "by itself"])
def test_the_file_is_read_again(cluster: Cluster, file: Path, told: bool) -> None:
    def tell() -> None:
        if told:
            for node in cluster.nodes:
                node.process.send_signal(signal.SIGHUP)

    assert post(cluster, "secret of new").status_code == 401
    file.write_text(TEXT + f'[new]\ndigest = "{secret_digest("secret of new")}"')
    tell()
    wait_until(lambda: post(cluster, "secret of new").status_code == 200, "the new secret to work")
    file.write_text("[broken")
    tell()
    line = "RELAY_TOKEN_SECRETS_FILE: "
    wait_until(lambda: line in cluster.nodes[0].log(), "a line about the bad file")
    assert post(cluster, "secret of new").status_code == 200
    file.unlink()
    tell()
    wait_until(lambda: "No such file" in cluster.nodes[0].log(), "a line about the lost file")
    assert post(cluster, "secret of new").status_code == 200
    file.write_text(TEXT)
    tell()
    wait_until(lambda: post(cluster, "secret of new").status_code == 401, "the secret not to work any more")
    assert post(cluster, "secret of alice").status_code == 200


def test_a_bad_file_stops_the_start_with_one_line(file: Path) -> None:
    file.write_text("[alice]")
    command = [sys.executable, "-m", "relay", "serve", "--token-secrets-file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(f"{file}: alice: digest: Field required\n")


def relay_secret(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relay", "secret", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)


def test_what_relay_secret_makes_works(cluster: Cluster, file: Path) -> None:
    done = relay_secret("bo.b")
    assert done.returncode == 0
    word = done.stderr.split()[-1]
    assert word not in done.stdout
    file.write_text(TEXT + done.stdout)
    wait_until(lambda: post(cluster, word).status_code == 200, "the secret to work")


def test_relay_secret_takes_one_that_exists() -> None:
    done = relay_secret("alice", "--stdin", given="secret of alice\n")
    assert done.stdout == f'[alice]\ndigest = "{secret_digest("secret of alice")}"\n'
    assert done.stderr == ""


@pytest.mark.parametrize(("name", "given"), [("a b", "long enough"), ("", "long enough"), ("alice", "short\n")])
def test_relay_secret_refuses_with_one_line(name: str, given: str) -> None:
    done = relay_secret(name, "--stdin", given=given)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_sighup_without_a_file_ends_no_node() -> None:
    """A reload by systemd, of a node that has nothing to read again. It would end without a drain."""
    with alone() as cluster:
        cluster[0].process.send_signal(signal.SIGHUP)
        wait_until(lambda: "there is nothing to read again" in cluster[0].log(), "a line about that")
        assert httpx.get(cluster[0].url + "/readyz").status_code == httpx.codes.OK
