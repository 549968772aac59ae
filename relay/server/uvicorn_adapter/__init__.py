"""The only modules that use what is private or undocumented in uvicorn, httptools and uvloop.

`HttpProtocol` is uvicorn's HTTP/1.1 protocol behind an interface of our own: hooks that `protocol.Protocol` overrides,
and operations that it and `Connection` call. `Cycle` is one request, and writes its response. `SignalServer` does for
uvicorn's server what `HttpProtocol` does for its protocol.

`HttpProtocol` would be too long for one file. So each of these modules has a class that extends the one above it, from
`HttpBase` to `HttpProtocol` itself:

- `base`: the hooks, the state, and how a connection is set up.
- `requests`: which requests have no complete response yet, and what is done with their responses.
- `parsing`: from the client's bytes to requests.
- `http`: what receives the client's bytes: the parser, an intake (by way of `direct`), or a discard.

They are not objects that call each other, because such calls would make each request cost more.

Each attribute and each behaviour that is relied on here has a test in `tests/contract/`, which says what
breaks if it changes.
"""

from relay.server.uvicorn_adapter.base import Head
from relay.server.uvicorn_adapter.http import HttpProtocol
from relay.server.uvicorn_adapter.server import SignalServer

__all__ = ["Head", "HttpProtocol", "SignalServer"]
