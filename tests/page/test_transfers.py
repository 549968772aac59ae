"""Files between the page and curl, and between two pages."""

import re
from pathlib import Path

import httpx

from tests.page.conftest import SIZE, Side, address_of, digest
from tests.support.cluster import Cluster, Curl
from tests.support.haproxy import HAProxy


def test_from_the_page_to_curl(sides: tuple[Side, Side], haproxy: HAProxy, big_file: Path, tmp_path: Path) -> None:
    sender, _ = sides
    link = sender.send(haproxy.url, big_file)
    sender.wait_state("waiting")
    with Curl("-f", "-o", tmp_path / "got", address_of(link, haproxy.url)) as download:
        assert download.finish() == (0, b"")
    sender.wait_state("delivered")
    assert digest(tmp_path / "got") == digest(big_file)


def test_from_curl_to_the_page(sides: tuple[Side, Side], cluster: Cluster, haproxy: HAProxy, big_file: Path) -> None:
    _, receiver = sides
    token = cluster.token()
    link = httpx.post(cluster.url(0, token, "b%20c") + "/link").text.strip()
    receiver.page.goto(f"{haproxy.url}/receive#{link}/b%20c")
    receiver.page.wait_for_selector('#file[data-state="absent"]')
    with Curl("-T", big_file, cluster.url(1, token, "b%20c")) as upload:
        receiver.page.wait_for_selector('#file[data-state="ready"]')
        assert receiver.page.locator("#name").inner_text() == "b c"
        assert receiver.page.locator("#size").inner_text() == f"{SIZE / 1e6:.0f} MB"
        with receiver.page.expect_download() as download:
            receiver.page.locator("#download").click()
        assert download.value.suggested_filename == "b c"
        assert digest(Path(download.value.path())) == digest(big_file)
        assert upload.finish() == (0, f"delivered {SIZE} bytes\n".encode())
        receiver.page.wait_for_selector('#file[data-state="over"]')


def test_from_page_to_page(sides: tuple[Side, Side], haproxy: HAProxy, big_file: Path) -> None:
    sender, receiver = sides
    link = sender.send(haproxy.url, big_file)
    assert digest(receiver.receive(link)) == digest(big_file)
    receiver.page.wait_for_selector('#file[data-state="whole"]')
    sender.wait_state("delivered")
    assert sender.page.title() == "Delivered – relay"
    assert sender.complaints == receiver.complaints == []


class Prefixed(HAProxy):
    """A balancer that serves the relay below a path of its own."""

    def start(self, *options: str) -> None:
        rule = r"    http-request replace-path ^/below/here/(.*) /\\1" + "\n"
        self.text, count = re.subn(r"(?m)^(frontend relay\n)", r"\1" + rule, self.text)
        assert count == 1
        super().start(*options)


def test_below_a_path_of_a_balancer(sides: tuple[Side, Side], cluster: Cluster, big_file: Path, tmp_path: Path) -> None:
    sender, receiver = sides
    with Prefixed(cluster.nodes, tmp_path) as balancer:
        link = sender.send(balancer.url + "/below/here/", big_file)
        assert link.startswith(balancer.url + "/below/here/receive#")
        assert digest(receiver.receive(link)) == digest(big_file)
        sender.wait_state("delivered")
    assert all("/below/here/" in address for address in sender.addresses + receiver.addresses)
