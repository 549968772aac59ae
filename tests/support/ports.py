"""Free TCP ports."""

import secrets
import socket
from typing import Final

#: Ports below those that Linux gives to outgoing connections (net.ipv4.ip_local_port_range begins at 32768): otherwise
#: some connection may take the port while a test restarts the server that listens on it. A node of a Redis Cluster also
#: listens on the port that is 10,000 higher, so the range ends before these begin.
_RANGE: Final = range(12_000, 20_000)

#: The ports that this process has given away. A server that is down for a moment shall find its own port again.
_given: set[int] = set()


def free_port() -> int:
    """Return a port on which nobody was listening a moment ago, and which this process has not been given before."""
    while True:
        port = secrets.choice(_RANGE)  # pytest-randomly gives all processes of pytest the same `random`
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
