"""The forms of `RELAY_REDIS_URL`, and which of them are refused. Pure."""

import re
from urllib.parse import SplitResult, parse_qsl

#: The forms of RELAY_REDIS_URL.
REDIS_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
#: In place of a Redis, a store in the memory of the node's own process.
IN_PROCESS = "memory://"
#: The options that may follow the `?` of a Redis URL. redis-py accepts more, and some of those break the relay.
_DATABASE = {"db": r"[0-9]{1,5}"}
_TLS = {
    "ssl_ca_certs": r".+",
    "ssl_certfile": r".+",
    "ssl_keyfile": r".+",
    "ssl_cert_reqs": r"none|optional|required",
    "ssl_check_hostname": r"true|false",
}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:(?P<port>[0-9]{1,5}))?")
_HIGHEST_PORT = 65535


def split_url(text: str) -> SplitResult:
    """Split a URL as RFC 3986, appendix B, does.

    Its authority may be a list of hosts, in which `urlsplit` of Python 3.11.12, 3.12.9, 3.13.2 and later refuses IPv6
    addresses after the first host.
    """
    scheme, authority, path, query, fragment = re.fullmatch(  # type: ignore[union-attr]
        r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", text, re.DOTALL
    ).groups(default="")
    return SplitResult(scheme.lower(), authority, path, query, fragment)


def hosts_of(text: str) -> str:
    """Return the hosts of a URL, or its socket, to be shown: without user, password and options."""
    url = split_url(text)
    return url.netloc.rpartition("@")[2] or url.path


def check_redis_url(text: str) -> None:
    """Raise ValueError if a part of the URL would be misread, or would fail only at the first command.

    The message never repeats the URL, which may contain a password.
    """
    if text != IN_PROCESS:
        _check_servers(text)


def _check_servers(text: str) -> None:
    url = split_url(text)
    if url.scheme not in REDIS_SCHEMES:
        forms = ", ".join(f"{scheme}://" for scheme in REDIS_SCHEMES)
        raise ValueError(f"must begin with {forms}, or be {IN_PROCESS} or empty")
    kind, _, form = url.scheme.partition("+")
    options = ({} if form else _DATABASE) | (_TLS if kind == "rediss" else {})
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        if not re.fullmatch(options.get(name, r"(?!)"), value):
            raise ValueError(f"has a bad option after the ?; here it takes {', '.join(options) or 'none'}")
    if kind == "unix":
        if not url.path:
            raise ValueError("must name a socket: unix:///run/redis.sock")
        return
    hosts = url.netloc.rpartition("@")[2].split(",")
    if len(hosts) > 1 and not form:
        raise ValueError("names several hosts: begin with redis+sentinel:// or redis+cluster://")
    for host in hosts:
        match = _HOST.fullmatch(host)
        if match is None or not 0 < int(match["port"] or 1) <= _HIGHEST_PORT:
            raise ValueError("has a bad host or port: HOST, HOST:PORT or [IPv6]:PORT")
    path = {"sentinel": r"(/[^/]*(/[0-9]{0,5})?)?", "cluster": r"/?0?"}.get(form, r"/?[0-9]{0,5}")
    if not re.fullmatch(path, url.path):
        raise ValueError("has a bad path: the number of a database, or SERVICE/DB with redis+sentinel://")
