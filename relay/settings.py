"""Settings: environment variables `RELAY_…`, or the flags of `relay serve` that are made from them.

The description of each field says its meaning and unit; times are in seconds, sizes in bytes. A bad value stops the
start, with one line that names the variable or the flag.
"""

import difflib
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from relay.buffers import CHUNK
from relay.rates import parse_rate
from relay.redis_urls import IN_PROCESS, check_redis_url
from relay.secrets_file import read_secrets

Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600, allow_inf_nan=False)]
#: What may be 0 seconds, but not days.
Pause = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]


#: The settings by what they are for, in the order of the help and of the operators' page.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Where it listens": ("host", "port", "ssl_certfile", "ssl_keyfile", "trusted_proxies", "interim_proxies"),
    "The cluster": ("redis_url", "redis_url_file", "prefix", "node", "heartbeat", "node_death"),
    "Who may do what": (
        *("token_secret", "token_secret_file", "token_secrets_file", "admin_secret", "admin_secret_file"),
        *("status", "cors_origins"),
    ),
    "Limits": (
        *("token_rate", "failure_rate", "token_names", "token_bytes", "max_upload", "max_duration"),
        *("header_timeout", "stall"),
    ),
    "Lives of tokens": ("token_life", "token_use", "token_max", "token_floor"),
    "Waiting and coming back": (
        *("upload_wait", "download_wait", "download_wait_max", "rejoin_wait", "resume_wait", "rewind"),
    ),
    "How it uses Redis": ("chunk", "window", "redis_patience", "transfer_patience", "redis_commands"),
    "Stopping": ("drain_delay", "drain_wait", "drain_timeout"),
    "Logs": ("log_format", "log_level"),
}


def _node_name() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:32] or "node"


_PREFIX = "RELAY_"
#: What holds a secret, and can also be read from a file, as Docker and Kubernetes provide them: RELAY_…_FILE.
_IN_FILES = ("redis_url", "token_secret", "admin_secret")
#: What `relay send` and `relay receive` read.
_OF_THE_CLIENT = {"RELAY_SERVER", "RELAY_LINK", "RELAY_TOKEN"}
#: What Kubernetes sets in every pod for a service whose name begins with "relay": RELAY_SERVICE_HOST,
#: RELAY_PORT_4000_TCP_ADDR, RELAY_NODES_SERVICE_PORT_HTTP, … `docker --link` did, too.
_SERVICE_LINK = re.compile(
    r"RELAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


class Settings(BaseSettings):
    """All settings. `relay serve --help` shows them."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 (a server for others)
    port: int = Field(4000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")
    ssl_certfile: str = Field(
        "", description="PEM file with the certificate and its chain, to serve HTTPS instead of HTTP; empty: HTTP"
    )
    ssl_keyfile: str = Field("", description="PEM file with the key, if it is not in the same file")
    redis_url: str = Field(
        "",
        description="redis://, rediss://, unix://, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB or "
        "redis+cluster://HOST:PORT; empty: one node by itself, with a redis-server of its own if one is installed; "
        "memory://: one node by itself, with a store in its process",
    )
    redis_url_file: str = Field("", description="file with the URL of Redis, in place of RELAY_REDIS_URL")
    prefix: str = Field(
        "relay",
        pattern=r"^[A-Za-z0-9_.-]{1,32}$",
        description="first part of every Redis key, before the first colon",
    )
    node: str = Field(
        default_factory=_node_name,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="this node's name; each start adds six random hex digits to it. Default: the host's name",
    )
    token_life: Seconds = Field(20 * 60, description="seconds that a new token lives")
    token_use: Seconds = Field(5 * 60, description="seconds that each PUT or GET adds to the token's life")
    token_max: Seconds = Field(60 * 60, description="maximum seconds that a token has left after a use")
    token_floor: Seconds = Field(
        5 * 60, description="minimum seconds that a token has left while one of its transfers streams"
    )
    upload_wait: Seconds = Field(5 * 60, description="seconds that an upload waits for its downloader")
    download_wait: float = Field(
        2,
        ge=0,
        le=300,
        allow_inf_nan=False,
        description="seconds that a download waits for its upload if it has no ?wait=",
    )
    download_wait_max: Seconds = Field(300, description="maximum seconds that ?wait= may ask for")
    max_upload: Bytes = Field(0, description="maximum size of one upload, in bytes; 0: unlimited")
    max_duration: float = Field(
        0,
        ge=0,
        le=7 * 24 * 3600,
        allow_inf_nan=False,
        description="maximum seconds that one transfer may stream; 0: unlimited",
    )
    header_timeout: Seconds = Field(30, description="maximum seconds for a client to send the header of a request")
    stall: Seconds = Field(
        5 * 60, description="seconds without a byte from or to a client after which its transfer ends"
    )
    token_secret: str = Field(
        "",
        description="secrets, comma-separated; POST /token needs one of them as Bearer token; empty: none is needed",
    )
    token_secret_file: str = Field(
        "", description="file with these secrets, one on each line, in place of RELAY_TOKEN_SECRET; read at the start"
    )
    token_secrets_file: str = Field(
        "",
        description="TOML file of named secrets with limits, beside those of RELAY_TOKEN_SECRET; read again when it "
        "changes and on SIGHUP; empty: none",
    )
    token_rate: str = Field(
        "600/minute",
        description="maximum tokens made from one address, as 10/second or 600 per 2 hours; empty: unlimited",
    )
    failure_rate: str = Field(
        "300/minute", description="maximum 401 answers to one address, for wrong tokens or secrets; empty: unlimited"
    )
    token_names: int = Field(
        10_000,
        ge=0,
        description="maximum names of one token in use at a time: by uploads, and by downloads that wait; 0: unlimited",
    )
    token_bytes: Bytes = Field(0, description="maximum sum of the bytes of all transfers of one token; 0: unlimited")
    chunk: int = Field(CHUNK, ge=1, le=16 * 1024 * 1024, description="maximum bytes of one Redis stream entry")
    window: int = Field(
        2 * 1024 * 1024,
        ge=1,
        le=1024 * 1024 * 1024,
        description="maximum bytes of one transfer in Redis that are not acknowledged; up to one chunk more",
    )
    heartbeat: Seconds = Field(2, description="seconds between two heartbeats of a node")
    node_death: Seconds = Field(6, description="seconds without a heartbeat after which a node is considered dead")
    rejoin_wait: Pause = Field(
        30, description="seconds that an upload waits for its downloader to come back; 0: it ends when that leaves"
    )
    resume_wait: Seconds = Field(
        5 * 60, description="seconds that a transfer waits for its uploader to come back, if that can resume"
    )
    rewind: Bytes = Field(
        8 * 1024 * 1024,
        description="maximum bytes of an upload that its node keeps for a downloader that comes back; a node keeps at "
        "most eight times as much for all its uploads",
    )
    redis_patience: Seconds = Field(1.5, description="seconds to keep trying Redis before a new request gets 503")
    transfer_patience: Seconds = Field(
        10, description="seconds that a running transfer keeps trying Redis before it ends as store_lost"
    )
    # Each step of a client that connects waits for a turn, and with hundreds of streams each turn is a round of the
    # event loop: with 64 at a time, the last of 200 downloads began when the first was done.
    redis_commands: int = Field(
        256,
        ge=1,
        le=10_000,
        description="maximum commands to Redis at a time; they share one connection, and streams have their own",
    )
    drain_delay: Pause = Field(
        5,
        description="seconds after SIGTERM during which the node is unready but takes work, until the balancer notices",
    )
    drain_wait: Pause = Field(10, description="seconds after that until waiting clients get 503")
    drain_timeout: float = Field(
        120,
        ge=0,
        le=24 * 3600,
        allow_inf_nan=False,
        description="seconds after SIGTERM until streams are cut off",
    )
    trusted_proxies: str = Field(
        "",
        description="addresses or networks of proxies, comma-separated, whose X-Forwarded-For and -Proto are trusted",
    )
    interim_proxies: str = Field(
        "",
        description="addresses or networks of proxies, comma-separated, that pass interim responses on, such as 104 to "
        "resumable uploads, as does every proxy in front of them; HAProxy does, nginx does not",
    )
    admin_secret: str = Field(
        "",
        description="secret with which GET / shows everything, as Bearer token or as Basic password; empty: none",
    )
    admin_secret_file: str = Field(
        "", description="file with this secret, in place of RELAY_ADMIN_SECRET; read at the start"
    )
    status: str = Field(
        "public",
        pattern=r"^(public|private)$",
        description="who may see GET /status (also below the page at /) and /metrics: public (everybody, without "
        "secrets and names) or private (only with RELAY_ADMIN_SECRET)",
    )
    log_format: str = Field(
        "auto", pattern=r"^(auto|text|json)$", description="text, json (one object a line), or auto: text on a terminal"
    )
    cors_origins: str = Field(
        "",
        description="origins of pages that may use the relay, comma-separated, such as https://example.org; *: all; "
        "empty: none",
    )
    log_level: str = Field("info", pattern=r"^(debug|info|warning|error)$", description="debug, info, warning, error")

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Put what the files hold in place of the settings that they stand for."""
        read = {name: _held(given, name) for name in _IN_FILES if given.get(f"{name}_file")}
        return {**given, **read}

    @field_validator("port", mode="before")
    @classmethod
    def _port(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith("tcp://"):
            raise ValueError(
                "is set by Kubernetes for a service called relay: say enableServiceLinks: false in the pod, or set it"
            )
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: str) -> str:
        if value:
            check_redis_url(value)
        return value

    @field_validator("token_secret")
    @classmethod
    def _secrets(cls, value: str) -> str:
        if value and not all(re.fullmatch(r"[!-~]{8,}", secret) for secret in value.split(",")):
            raise ValueError("each must have at least 8 characters, of ASCII and without blanks")
        return value

    @field_validator("token_secrets_file")
    @classmethod
    def _secrets_file(cls, value: str) -> str:
        if value:
            read_secrets(Path(value))
        return value

    @field_validator("token_rate", "failure_rate")
    @classmethod
    def _rate(cls, value: str) -> str:
        try:
            parse_rate(value)
        except ValueError:
            raise ValueError("must be such as 10/second, 600/minute or 600 per 2 hours, or empty") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        """Refuse what would never match, because browsers never send it: a path, a slash at the end, blanks."""
        for origin in value.split(",") if value else ():
            if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#,@\sA-Z]+", origin):
                raise ValueError("each must be an origin, such as https://example.org:8080, or *")
        return value

    @field_validator("trusted_proxies", "interim_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        """Refuse what uvicorn would take for a name that never matches; and `*`, which would let every client claim any
        address."""
        for part in value.split(",") if value else ():
            try:
                ipaddress.ip_network(part.strip())
            except ValueError:
                raise ValueError(f"{part.strip()!r} is not an address or a network, such as 10.0.0.0/8") from None
        return value

    @field_validator("admin_secret")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if value and not re.fullmatch(r"[!-~]{8,}", value):
            raise ValueError("must have at least 8 characters, of ASCII and without blanks")
        return value

    @property
    def is_alone(self) -> bool:
        """Whether the node shares its store with no other node."""
        return self.redis_url in ("", IN_PROCESS)

    @property
    def is_guarded(self) -> bool:
        """Whether POST /token needs a secret."""
        return bool(self.token_secret or self.token_secrets_file)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Refuse combinations that cannot work."""
        if self.node_death < 2 * self.heartbeat:
            raise ValueError("RELAY_NODE_DEATH must be at least twice RELAY_HEARTBEAT, or a late beat kills a node")
        if self.token_max < self.token_floor:
            raise ValueError("RELAY_TOKEN_MAX must be at least RELAY_TOKEN_FLOOR")
        _check_certificate(self.ssl_certfile, self.ssl_keyfile)
        if self.download_wait > self.download_wait_max:
            raise ValueError("RELAY_DOWNLOAD_WAIT must be at most RELAY_DOWNLOAD_WAIT_MAX")
        if self.status == "private" and not self.admin_secret:
            raise ValueError("RELAY_STATUS=private needs a RELAY_ADMIN_SECRET, or nobody can see it")
        return self


def _held(given: Mapping[str, Any], name: str) -> str:
    """Return what the file of a setting holds, its lines joined by commas. Raise ValueError if it cannot be used."""
    setting, path = f"RELAY_{name}".upper(), given[f"{name}_file"]
    if given.get(name):
        raise ValueError(f"{setting} and {setting}_FILE are both set: keep one of them")
    try:
        lines = Path(path).read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ValueError(f"{setting}_FILE: {path}: {reason}") from None
    found = ",".join(filter(None, (line.strip() for line in lines)))
    if not found:
        raise ValueError(f"{setting}_FILE: {path}: it is empty")
    if name == "token_secret" and found.startswith("["):
        raise ValueError(f"{setting}_FILE: {path}: named secrets belong into RELAY_TOKEN_SECRETS_FILE")
    return found


def _check_certificate(certificate: str, key: str) -> None:
    """Raise ValueError unless the server can use them."""
    if key and not certificate:
        raise ValueError("RELAY_SSL_KEYFILE needs a RELAY_SSL_CERTFILE")
    if certificate:
        try:
            # With a password given, OpenSSL refuses an encrypted key instead of asking for a password on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key or None, password="none")  # noqa: S106
        except OSError as error:  # SSLError is an OSError, too
            reason = "not a certificate and its key, unencrypted" if isinstance(error, ssl.SSLError) else error.strerror
            raise ValueError(f"RELAY_SSL_CERTFILE and RELAY_SSL_KEYFILE cannot be used: {reason}") from None


def unknown_variables(environment: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names that begin like a setting's variable but are none, each with the one it resembles, or ""."""
    known, found = [name.upper() for name in Settings.model_fields], list[tuple[str, str]]()
    for variable in sorted(environment):
        name = variable.upper()  # pydantic takes either case
        if name in _OF_THE_CLIENT or _SERVICE_LINK.fullmatch(name):
            continue
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in known:
            meant = difflib.get_close_matches(name.removeprefix(_PREFIX), known, n=1)
            found.append((variable, _PREFIX + meant[0] if meant else ""))
    return found
