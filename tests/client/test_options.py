"""What the options and variables promise: certificates, secrets, proxies, and what a terminal shows."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from relay.cli.main import main
from tests.client.commands import receive, send, through
from tests.client.forward import ForwardProxy
from tests.client.terminal import Terminal
from tests.support.certificate import make_certificate
from tests.support.cluster import Cluster, alone, random_file
from tests.support.proxy import Proxy
from tests.support.wait import wait_until

SECRET = "a-secret-of-the-tests"
#: What a terminal obeys: colours and movements of the cursor.
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9;]*m")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return random_file(tmp_path / "holiday.zip", 3_000_000)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(certificate: tuple[str, str]) -> Iterator[Cluster]:
    """Start a node that speaks HTTPS with a certificate of its own, and wants a secret for a token."""
    with alone(ssl_certfile=certificate[0], ssl_keyfile=certificate[1], token_secret=SECRET) as cluster:
        yield cluster


def test_a_certificate_must_be_known_or_waived(
    secure: Cluster, certificate: tuple[str, str], file: Path, tmp_path: Path, inbox: Path
) -> None:
    server = secure[0].url
    secret = {"RELAY_TOKEN_SECRET": SECRET}
    with send(server, file, environment=secret) as sender:
        assert sender.finish() == 3
        assert "certificate verify failed" in sender.said
    with send(server, file, "--cacert", file, environment=secret) as sender:
        assert sender.finish() == 2
        assert f"--cacert: cannot use {file}" in sender.said
    with send(server, file, "--cacert", certificate[0], environment=secret) as sender:
        with receive("--insecure", sender.address(), cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.said
        assert sender.finish() == 0, sender.said
    assert receiver.said.count("warning: no certificate is checked, so whoever is between can read the file") == 1
    assert "warning" not in sender.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()


def test_a_secret_comes_from_a_file_or_the_environment(secure: Cluster, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\nanother line\n")
    for mode, is_warned in ((0o600, False), (0o644, True)):
        path.chmod(mode)
        with send(secure[0].url, file, "--insecure", "--secret-file", path) as sender:
            sender.address()
            assert (f"everybody on this machine can read {path}: chmod 600 it" in sender.said) is is_warned
            sender.stop()
    for secret in ("", "wrong"):
        with send(secure[0].url, file, "--insecure", environment={"RELAY_TOKEN_SECRET": secret}) as sender:
            assert sender.finish() == 1
            assert "put it into RELAY_TOKEN_SECRET, or into a file (--secret-file)" in sender.said
    with send(secure[0].url, file, "--secret-file", tmp_path / "none") as sender:
        assert sender.finish() == 2
        assert f"cannot read {tmp_path / 'none'}: No such file" in sender.said


def test_proxies_come_from_the_environment(
    cluster: Cluster, secure: Cluster, certificate: tuple[str, str], file: Path, inbox: Path
) -> None:
    with contextlib.closing(ForwardProxy()) as proxy:
        plain = {"HTTP_PROXY": proxy.url}
        with send(cluster[0].url, file, environment=plain) as sender:
            address = sender.address()
            with receive(address, cwd=inbox, environment=plain) as receiver:
                assert receiver.finish() == 0, receiver.said
            assert sender.finish() == 0, sender.said
        assert {line.split()[0] for line in proxy.asked} == {"POST", "PATCH", "GET", "HEAD"}
        assert all(line.split()[1].startswith(cluster[0].url) for line in proxy.asked)
        proxy.asked.clear()

        with send(cluster[0].url, file, environment={**plain, "NO_PROXY": "127.0.0.1"}) as sender:
            sender.address()
            sender.stop()
        assert proxy.asked == []

        through = {"HTTPS_PROXY": proxy.url, "RELAY_TOKEN_SECRET": SECRET}
        (inbox / file.name).unlink()
        with send(secure[0].url, file, "--cacert", certificate[0], environment=through) as sender:
            with receive("--cacert", certificate[0], sender.address(), cwd=inbox, environment=through) as receiver:
                assert receiver.finish() == 0, receiver.said
            assert sender.finish() == 0, sender.said
        assert {line.split()[0] for line in proxy.asked} == {"CONNECT"}
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    with send(cluster[0].url, file, environment={"HTTP_PROXY": "http://127.0.0.1:1"}) as sender:
        assert sender.finish() == 3
        assert "cannot reach" in sender.said


def lines_of(screen: str) -> list[str]:
    """Return the lines that were written to a terminal, each time anew, without what the terminal obeys."""
    return re.split(r"[\r\n]+", _ESCAPE.sub("", screen))


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_shows_code_prompt_and_bar(cluster: Cluster, tmp_path: Path, inbox: Path, columns: int) -> None:
    """And each time the bar is one line of it."""
    file = random_file(tmp_path / "holiday.zip", 12_000_000)
    with Terminal("send", "--server", cluster[0].url, file, columns=columns) as sender:
        sender.wait_for("waiting for somebody")
        link = re.search(r"relay receive (\S+)", sender.screen)
        assert link
        assert ("▄" in sender.screen) is (columns > 40)  # the QR code, if it is not wider than the terminal
        with contextlib.closing(Proxy(cluster[0].port)) as slow:
            slow.rate = 4_000_000
            with Terminal("receive", columns=columns, cwd=inbox) as receiver:
                receiver.wait_for("Link: ")
                receiver.type(through(slow.port, link[1]) + "\n")
                receiver.wait_for("B/s")
                receiver.resize(columns - 10)
                assert receiver.finish() == 0, receiver.screen
        assert sender.finish() == 0, sender.screen
    for screen in (sender.screen, receiver.screen):
        bars = [line for line in lines_of(screen) if "━" in line]
        assert "100 %" in bars[-1]
        assert all(cell_len(line) <= columns for line in bars), bars
        assert _COLOUR.search(screen)
        assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h")  # the cursor is back
    assert cell_len(bars[-1]) <= columns - 10  # the receiver's last one, in a window that has become narrower
    assert (inbox / file.name).read_bytes() == file.read_bytes()


def test_a_terminal_shows_less_on_demand(cluster: Cluster, file: Path, inbox: Path) -> None:
    plain = {"NO_COLOR": "1"}
    with Terminal("send", "--no-qr", "--server", cluster[0].url, file, environment=plain) as sender:
        link = re.search(r"curl -fOJ (\S+)", sender.wait_for("waiting for somebody"))
        assert link
        with Terminal("receive", "--no-progress", link[1], cwd=inbox) as receiver:
            assert receiver.finish() == 0, receiver.screen
        assert sender.finish() == 0, sender.screen
    assert "▄" not in sender.screen
    assert not _COLOUR.search(sender.screen)
    assert receiver.screen == "received 3.0 MB as holiday.zip, checksum compared\r\n"


def test_without_a_terminal_there_is_no_code_unless_it_is_wanted(cluster: Cluster, file: Path) -> None:
    for number, (option, is_shown) in enumerate([("--no-qr", False), ("--qr", True)]):
        with send(cluster[number].url, file, option) as sender:
            sender.wait_for("waiting for somebody")
            assert ("▄" in sender.said) is is_shown
            assert "━" not in sender.said
            sender.stop()


def test_a_file_is_not_printed_on_a_terminal(cluster: Cluster, file: Path) -> None:
    """It may have escapes, which the terminal would obey."""
    with send(cluster[0].url, file) as sender:
        with Terminal("receive", "-o", "-", sender.address()) as receiver:
            assert receiver.finish() == 2
            assert "would be printed on" in receiver.screen
        sender.stop()


def test_a_command_that_is_suspended_leaves_the_terminal_in_order(cluster: Cluster, file: Path, inbox: Path) -> None:
    """Ctrl-Z shows the cursor again; the command goes on where it was."""
    with contextlib.closing(Proxy(cluster[0].port)) as slow, send(cluster[0].url, file) as sender:
        slow.rate = 1_000_000
        address = through(slow.port, sender.address())
        with Terminal("receive", address, cwd=inbox) as receiver:
            receiver.wait_for("B/s")
            receiver.process.send_signal(signal.SIGTSTP)
            wait_until(lambda: os.waitpid(receiver.process.pid, os.WUNTRACED | os.WNOHANG)[0], "it to stop")
            assert receiver.see().rpartition("\x1b[?25")[2].startswith("h"), receiver.screen[-200:]
            receiver.process.send_signal(signal.SIGCONT)
            slow.rate = 0
            assert receiver.finish() == 0, receiver.screen
        assert sender.finish() == 0, sender.said
    assert (inbox / file.name).read_bytes() == file.read_bytes()


def relay(*arguments: str, **environment: str) -> str:
    """Return what the installed command prints."""
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [str(Path(sys.executable).with_name("relay")), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **paths, **environment}, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.stdout


def test_the_help_groups_the_commands() -> None:
    headings = re.findall(r"^(\w.*):$", relay("--help"), re.MULTILINE)
    assert headings == ["Options", "Transfer files", "Run the relay", "Look after a cluster"]
    for command in ("send", "receive"):
        assert "Examples:\n    relay" in relay(command, "--help")
        assert re.search(r"\n +130 +interrupted", relay(command, "--help"))


def test_ctrl_c_before_anything_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("relay.cli.client.Shared.http", interrupt)
    done = CliRunner().invoke(main, ["receive", f"http://127.0.0.1:1/{'A' * 30}/x"])
    assert (done.exit_code, done.output) == (130, "relay: interrupted\n")


def test_shells_complete_commands_options_and_files() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "relay" in relay(_RELAY_COMPLETE=f"{shell}_source")

    def completed(words: str) -> list[str]:
        count = str(len(words.split()) - 1)
        return relay(_RELAY_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count).split()

    assert completed("relay rec") == ["plain,receive"]
    assert completed("relay send --t") == ["plain,--token-file"]
    assert completed("relay receive -o f") == ["file,f"]
