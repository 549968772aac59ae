"""What `relay.client` takes from httpcore and tarfile, beyond what their pages promise."""

import io
import socket
import tarfile
import threading

import httpx

from relay.client.http import Http, Line


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


def test_httpcore_reads_large_pieces() -> None:
    """`relay.client.http` says how large; otherwise a download takes twice the processor time."""
    size = 200_000
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))

        thread = threading.Thread(target=serve)
        thread.start()
        with Http().open("GET", f"http://127.0.0.1:{server.getsockname()[1]}/") as response:
            thread.join(10)  # so all of it is in the kernel
            pieces = [len(piece) for piece in response.iter_raw()]
    assert sum(pieces) == size
    assert max(pieces) > 64 * 1024, f"httpcore has renamed READ_NUM_BYTES; httpx is {httpx.__version__}"


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
