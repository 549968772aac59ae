"""Settings: defaults as the design says, and one clear line for what cannot be."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from relay.settings import SECTIONS, Settings, unknown_variables
from tests.support.certificate import make_certificate
from tests.support.pages import OPERATORS


def serve(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "relay", "serve", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_defaults() -> None:
    settings = Settings()
    assert settings.port == 4000
    assert (settings.token_life, settings.token_use, settings.token_max) == (1200, 300, 3600)
    assert (settings.upload_wait, settings.download_wait, settings.stall) == (300, 2, 300)
    assert (settings.heartbeat, settings.node_death) == (2, 6)


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 70000},
        {"redis_url": "http://x"},
        {"redis_url": "localhost:6379"},
        {"node": "a b"},
        {"prefix": "a:b"},
        {"stall": 0},
        {"stall": float("nan")},
        {"heartbeat": 2, "node_death": 3},
        {"token_max": 60},
        {"download_wait": 200, "download_wait_max": 100},
        {"log_level": "loud"},
        {"log_format": "xml"},
        {"status": "private"},
        {"status": "hidden", "admin_secret": "long enough"},
        {"admin_secret": "short"},
        {"admin_secret": "with a blank"},
        {"chunk": 0},
        {"cors_origins": "https://example.org/"},
        {"cors_origins": "example.org"},
        {"cors_origins": "https://Example.org"},
        {"cors_origins": "https://a.example, https://b.example"},
        {"token_rate": "many"},
        {"token_rate": "0/minute"},
        {"failure_rate": "-1/minute"},
        {"token_secret": "short"},
        {"token_secret": "long-enough,"},
        {"token_secret": "long enough"},
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(settings)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:0",
        "redis://h:65536",
        "redis://h:x",
        "redis://:6379",
        "redis://h:1:2",
        "redis://::1",
        "redis://a,b",
        "redis://h/x",
        "redis://h/1/2",
        "redis://h/-1",
        "redis://h/?db=x",
        "redis://h/?decode_responses=1",
        "redis://h/?socket_timeout=",
        "rediss://h/?ssl_cert_reqs=maybe",
        "redis://h/?ssl_ca_certs=/etc/ca.pem",
        "redis+sentinel://h/main/0?db=1",
        "unix://",
        "redis+sentinel://a:1,b:x/main/0",
        "redis+sentinel://a/main/x",
        "redis+sentinel://a/main/0/1",
        "redis+cluster://a/1",
        "redis+cluster://a,,b",
    ],
)
def test_a_redis_url_that_would_be_misread_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Settings(redis_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:1/15",
        "redis://user:p%40ss@[::1]:6379/0",
        "rediss://h/?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://:pw@a:1,b:2/main/3",
        "rediss+sentinel://a",
        "redis+cluster://a:1,[::1]:2/0",
    ],
)
def test_a_good_redis_url_is_taken(url: str) -> None:
    Settings(redis_url=url)


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    """With the newline at the end that editors write. A list may have one secret on each line."""
    for name, text in (("url", "redis://h:1/2\n"), ("tokens", "long-enough\n\nlonger-still\n"), ("admin", "operators")):
        (tmp_path / name).write_text(text)
    settings = Settings(
        redis_url_file=str(tmp_path / "url"),
        token_secret_file=str(tmp_path / "tokens"),
        admin_secret_file=str(tmp_path / "admin"),
        status="private",
    )
    assert settings.redis_url == "redis://h:1/2"
    assert settings.token_secret == "long-enough,longer-still"
    assert settings.admin_secret == "operators"
    assert settings.is_guarded


@pytest.mark.parametrize(
    ("content", "also", "line"),
    [
        (None, "", "RELAY_TOKEN_SECRET_FILE: PATH: No such file or directory"),
        (b"", "", "RELAY_TOKEN_SECRET_FILE: PATH: it is empty"),
        (b"\n\n", "", "RELAY_TOKEN_SECRET_FILE: PATH: it is empty"),
        (b"\xff\xfe", "", "RELAY_TOKEN_SECRET_FILE: PATH: not text"),
        (b"[alice]\n", "", "RELAY_TOKEN_SECRET_FILE: PATH: named secrets belong into RELAY_TOKEN_SECRETS_FILE"),
        (b"short\n", "", "RELAY_TOKEN_SECRET: each must have at least 8 characters, of ASCII and without blanks"),
        (b"long-enough\n", "x" * 8, "RELAY_TOKEN_SECRET and RELAY_TOKEN_SECRET_FILE are both set: keep one of them"),
    ],
)
def test_a_file_that_holds_no_secret_stops_the_start_with_one_line(
    tmp_path: Path, content: bytes | None, also: str, line: str
) -> None:
    """A node without its secret would let everybody make tokens."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    done = serve(RELAY_TOKEN_SECRET_FILE=str(file), RELAY_TOKEN_SECRET=also)
    assert done.returncode == 2
    assert done.stderr == f"relay: {line}\n".replace("PATH", str(file))


@pytest.mark.parametrize("proxies", ["*", "10.0.0.1/8", "proxy", "10.0.0.1,", "10.0.0.0/33", "10.0.0.1 10.0.0.2"])
def test_proxies_that_would_never_match_are_refused(proxies: str) -> None:
    with pytest.raises(ValidationError):
        Settings(trusted_proxies=proxies)


def test_good_proxies_are_taken() -> None:
    Settings(trusted_proxies="10.0.0.1, 172.16.0.0/12,fd00::/8")


def test_a_certificate_that_cannot_be_served_stops_the_start_with_one_line(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    Settings(ssl_certfile=certificate, ssl_keyfile=key)
    for bad in ({"ssl_keyfile": key}, {"ssl_certfile": certificate}, {"ssl_certfile": "/nowhere", "ssl_keyfile": key}):
        with pytest.raises(ValidationError):
            Settings.model_validate(bad)
    done = serve(RELAY_SSL_CERTFILE="/nowhere")
    assert done.returncode == 2
    assert done.stderr == (
        "relay: RELAY_SSL_CERTFILE and RELAY_SSL_KEYFILE cannot be used: No such file or directory\n"
    )


def test_a_bad_redis_url_does_not_show_its_password() -> None:
    done = serve(RELAY_REDIS_URL="redis://:hunter2@h:x/0")
    assert done.stderr.startswith("relay: RELAY_REDIS_URL: has a bad host or port")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"RELAY_PORT": "x"}, "relay: RELAY_PORT: "),
        ({"RELAY_REDIS_URL": "mysql://x"}, "relay: RELAY_REDIS_URL: must begin with redis://"),
        ({"RELAY_HEARTBEAT": "5"}, "relay: RELAY_NODE_DEATH must be at least twice RELAY_HEARTBEAT"),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line(environment: dict[str, str], line: str) -> None:
    done = serve(**environment)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["--stall", "-1"], {}, "relay: --stall: "),
        (["--token-life", "x"], {"RELAY_STALL": "1"}, "relay: --token-life: "),
        (["--heartbeat", "5"], {}, "relay: RELAY_NODE_DEATH must be at least twice --heartbeat, "),
        (["--node-death", "5"], {"RELAY_HEARTBEAT": "5"}, "relay: --node-death must be at least twice RELAY_HEARTBEAT"),
        (["--status", "private"], {}, "relay: --status=private needs a RELAY_ADMIN_SECRET"),
        (["--ssl-keyfile", "/x"], {}, "relay: --ssl-keyfile needs a RELAY_SSL_CERTFILE"),
    ],
)
def test_a_bad_flag_is_named_as_it_was_given(arguments: list[str], environment: dict[str, str], line: str) -> None:
    done = serve(*arguments, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("RELAY_TOKN_LIFE", "RELAY_TOKEN_LIFE"),
        ("RELAY_TOKENLIFE", "RELAY_TOKEN_LIFE"),
        ("relay_prot", "RELAY_PORT"),
        ("RELAY_REDIS", "RELAY_REDIS_URL"),
        ("RELAY_ADMIN_SECRET_FIL", "RELAY_ADMIN_SECRET_FILE"),
        ("RELAY_ZZZ", ""),
        ("RELAY_", ""),
    ],
)
def test_an_unknown_variable_is_found_with_the_one_that_it_resembles(variable: str, meant: str) -> None:
    assert unknown_variables([variable, "PATH", "RELAYS", "RELAY_PORT", "relay_stall"]) == [(variable, meant)]


def test_what_kubernetes_sets_for_a_service_called_relay_is_not_named() -> None:
    names = "SERVICE_HOST SERVICE_PORT SERVICE_PORT_HTTP PORT PORT_4000_TCP PORT_4000_TCP_PROTO NODES_PORT_1_TCP_ADDR"
    assert unknown_variables(f"RELAY_{name}" for name in names.split()) == []


def test_a_port_that_kubernetes_has_set_stops_the_start_with_what_to_do() -> None:
    done = serve(RELAY_PORT="tcp://10.0.0.1:4000")
    assert done.returncode == 2
    assert done.stderr.startswith("relay: RELAY_PORT: is set by Kubernetes")
    assert "enableServiceLinks" in done.stderr


def test_every_setting_is_in_one_section() -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(Settings.model_fields)


def test_help_lists_every_setting_in_its_section() -> None:
    text = serve("--help").stdout
    for title, names in SECTIONS.items():
        section = text.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^  --([a-z-]+) ", section, re.MULTILINE) == [name.replace("_", "-") for name in names]
    words = re.sub(r"\s+", "", text)
    for name in Settings.model_fields:
        assert f"[RELAY_{name.upper()}]" in words
        assert "--" + name.replace("_", "-") in words


def test_the_operators_page_lists_every_setting_with_its_default() -> None:
    text = OPERATORS.read_text()
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `RELAY_{name.upper()}` \| (.*?) \| (.*) \|$", text, re.MULTILINE)
        assert row, name
        if field.default_factory is None:
            assert row[1] == (f"{field.default:g}" if isinstance(field.default, float) else f"{field.default}"), name
        assert row[2] == (field.description or "").replace("|", "\\|"), name


def test_version() -> None:
    done = subprocess.run([sys.executable, "-m", "relay", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("relay, version ")


def test_a_port_in_use_ends_the_start_with_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve("--host", "127.0.0.1", "--port", str(taken.getsockname()[1]))
        port = taken.getsockname()[1]
    assert done.returncode == 1
    assert done.stderr == (
        f"relay: cannot listen on 127.0.0.1 port {port}: Address already in use. See --host and --port.\n"
    )
    assert done.stdout == ""


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_ends_the_start_with_a_line(host: str) -> None:
    done = serve("--host", host)
    assert done.returncode == 1
    assert done.stderr.startswith(f"relay: cannot listen on {host} port 4000: ")
    assert done.stderr.count("\n") == 1


def test_an_unknown_variable_is_named_at_the_start_and_its_value_is_not() -> None:
    """And the port that was taken by itself is told."""
    command = [sys.executable, "-m", "relay", "serve", "--host", "localhost", "--port", "0"]
    environment = os.environ | {"RELAY_ADMIN_SECRT": "hunter2hunter2", "RELAY_LOG_FORMAT": "text"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines: list[str] = []
        while not lines or "listening on " not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        for shown in lines[-1].partition("listening on ")[2].split(", "):
            assert httpx.get(f"http://{shown.strip()}/healthz", timeout=30).status_code == httpx.codes.OK
        process.terminate()
        lines += process.stderr.readlines()
    assert process.returncode == 0
    assert "RELAY_ADMIN_SECRT is not a setting: did you mean RELAY_ADMIN_SECRET?" in lines[0]
    assert "hunter2" not in "".join(lines)
