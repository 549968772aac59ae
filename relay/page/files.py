"""The page's static files, as they are in the package, and the policy under which a browser runs them. Pure."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

#: The Content-Security-Policy of every HTML page: its styles and scripts are files of this relay, nothing is inline,
#: and no text becomes HTML but the status page's own, which `status.js` takes in under a policy of its own.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types relay-status",
    ]
)
#: The same for an operator's pages, which have buttons that send a form to this relay.
OPERATORS_POLICY = POLICY.replace("form-action 'none'", "form-action 'self'")
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
#: Where `send.html` takes the status page's tables.
_TABLES = "<!-- tables -->"


class File(NamedTuple):
    """One static file. Its ETag is that of its content, so all nodes of one version give it the same."""

    content: bytes
    media_type: str
    etag: str


def _read(name: str, content: bytes) -> File:
    return File(content, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


_ALL = {file.name: _read(file.name, file.read_bytes()) for file in (files("relay.page") / "static").iterdir()}
#: The files at `/page/NAME`, by name. The HTML pages have addresses of their own.
ASSETS = {name: file for name, file in sorted(_ALL.items()) if not name.endswith(".html")}
RECEIVE = _ALL["receive.html"]


def send_page(tables: str) -> str:
    """Return the page that sends files, with the status page's tables below; none if `tables` is empty."""
    return _ALL["send.html"].content.decode().replace(_TABLES, tables)
