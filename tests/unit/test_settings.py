"""Settings: defaults as the design says, and one clear line for what cannot be."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from relay.settings import Settings

README = Path(__file__).parents[2] / "README.md"


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
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(settings)


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


def test_a_bad_flag_names_the_variable() -> None:
    done = serve("--stall", "-1")
    assert done.returncode == 2
    assert done.stderr.startswith("relay: RELAY_STALL: ")


def test_help_lists_every_setting() -> None:
    words = re.sub(r"\s+", "", serve("--help").stdout)
    for name in Settings.model_fields:
        assert f"[RELAY_{name.upper()}]" in words
        assert "--" + name.replace("_", "-") in words


def test_the_readme_lists_every_setting_with_its_default() -> None:
    text = README.read_text()
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
    assert done.returncode != 0
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr
