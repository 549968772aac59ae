"""What `relay.client` takes from httpcore and tarfile, beyond what their pages promise."""

import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time

import httpx
import pytest

from relay.client.http import Http, Line, pieces


def test_httpcore_says_by_which_socket_it_has_connected() -> None:
    """`Line.cut` shuts it down; otherwise a request on a dead connection would wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = Line()
        failed = threading.Event()

        def ask() -> None:
            try:
                Http().ask("GET", f"http://127.0.0.1:{server.getsockname()[1]}/", line=line)
            except Exception:
                failed.set()

        thread = threading.Thread(target=ask)
        thread.start()
        connection, _ = server.accept()
        with connection:
            connection.recv(1)  # so the client has connected
            assert line.is_connected, f"httpcore has changed its trace events; httpx is {httpx.__version__}"
            line.cut()
            thread.join(10)
        assert failed.is_set()


def test_httpx_can_do_without_its_own_command() -> None:
    """`relay.client` leaves `httpx._main` out: it would import rich and pygments, which takes 50 ms of each start."""
    script = "import sys, relay.client.http; print(sorted({'rich', 'pygments'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", f"httpx has changed what it imports; it is {httpx.__version__}"


@pytest.mark.parametrize("early", [0, 1, 3, 100_000])
def test_httpcore_keeps_nothing_back_after_the_first_piece(early: int) -> None:
    """`pieces` reads the rest from the connection itself. `early` bytes come together with the head."""
    body = os.urandom(300_000)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + body[:early])
                time.sleep(0.05)  # or the rest would come together with the head, too
                connection.sendall(body[early:])

        thread = threading.Thread(target=serve)
        thread.start()
        with Http().open("GET", f"http://127.0.0.1:{server.getsockname()[1]}/") as response:
            assert b"".join(pieces(response)) == body
        thread.join()


def test_tarfile_forgets_members() -> None:
    """`unpack` clears them after each one; otherwise all headers of a stream would stay in memory."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in "abc":
            tar.addfile(tarfile.TarInfo(name))
    with tarfile.open(fileobj=io.BytesIO(made.getvalue()), mode="r|") as tar:
        names = []
        while (member := tar.next()) is not None:
            names.append(member.name)
            tar.members.clear()  # type: ignore[attr-defined]
        assert names == list("abc")
        assert tar.members == []  # type: ignore[attr-defined]
