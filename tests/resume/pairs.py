"""Clients that come back until a file is whole: an uploader by resumable uploads, and a downloader by ranges."""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from relay.errors import FAILED_DEPENDENCY
from tests.support.http1 import Answer, Broken, Request
from tests.support.resumable import Failed, Uploader, check_rules

KIB = 1024
#: Maximum size of a file, in bytes, and some special ones.
_LARGEST, _SPECIAL = 4 * KIB * KIB, (0, 1, 64 * KIB, 256 * KIB)
#: Range of the seconds that a transfer takes if nothing fails: long enough that most are hit.
_SECONDS = (2.0, 6.0)
#: Bytes that the kernel keeps for a client, so that it does not hide the rate of the file.
_KERNEL = 64 * KIB
#: Seconds until a client tries again; and until a downloader that has everything asks whether its uploader knows.
_PAUSE, _UNSURE = 0.2, 1.0
#: Maximum seconds of a transfer, after which it is given up as stuck.
_STUCK = 150.0
#: Statuses that a downloader may get between two parts of a file.
_PASSING = {404, 409, 410, 424, 502, 503, 504}


class Cuttable:
    """The connections of all clients, which can be cut at random."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def add(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL)
        with self._lock:
            self._sockets.append(connection)

    def cut(self, dice: random.Random, *, is_reset: bool) -> bool:
        """Cut one that is open, under its client, which notices. Return False if none is open."""
        with self._lock:
            self._sockets = [each for each in self._sockets if each.fileno() != -1]
            if not self._sockets:
                return False
            connection = self._sockets.pop(dice.randrange(len(self._sockets)))
        with suppress(OSError):
            if is_reset:  # as soon as its client closes it
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RDWR)
        return True


@dataclass(frozen=True)
class Plan:
    """What the clients of one file do."""

    content: bytes
    seconds: float
    is_careful: bool
    piece: int | None
    knows_length: bool
    #: After how many of its connections broke a downloader begins again from the first byte, once; 0: never.
    forgets_after: int

    @classmethod
    def of(cls, dice: random.Random) -> "Plan":
        size = dice.choice(_SPECIAL) if dice.random() < 0.15 else dice.randrange(_LARGEST)
        manner = dice.choice(("whole", "careful", "pieces"))
        return cls(
            content=dice.randbytes(size),
            seconds=dice.uniform(*_SECONDS),
            is_careful=manner == "careful" or (manner == "pieces" and dice.random() < 0.5),
            piece=max(1, size // dice.randint(2, 5)) if manner == "pieces" else None,
            knows_length=dice.random() < 0.7,
            forgets_after=dice.choice((0, 0, 0, 1, 2)),
        )


class Pair:
    """The uploader and the downloader of one file. Each comes back until the file is whole.

    The downloader uses the nodes `down`, or the same as the uploader.
    """

    def __init__(
        self, nodes: Sequence[str], path: str, plan: Plan, connections: Cuttable, *, down: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.did: Counter[str] = Counter()
        self.found: list[str] = []
        self.nodes = nodes
        self._down = down or nodes
        self.plan = plan
        self._connections = connections
        self._broken = 0
        self.deadline = time.monotonic() + _STUCK
        #: The answer by which the uploader knows that everything has arrived.
        self.told: Answer | None = None
        self._etag = ""
        self._data = bytearray()
        self._is_whole = False

    def arrived(self) -> int:
        """Return how many bytes the downloader has."""
        return len(self._data)

    def run(self) -> None:
        """Transfer the file. Afterwards, `found` has what went wrong."""
        uploading = threading.Thread(target=self.upload)
        uploading.start()
        self._download()
        uploading.join()
        if self.told is None:
            self.found.append(f"{self.path}: the uploader does not know that it has arrived")
        if not self._is_whole or self._data != self.plan.content:
            whole = f"{len(self._data)} of {len(self.plan.content)} bytes have arrived"
            self.found.append(f"{self.path}: {whole}, the uploader was told {self.told}")

    # -- the uploader ----------------------------------------------------------------------------------------

    def upload(self) -> None:
        """Upload the file; begin again if the upload is lost."""
        try:
            while self.told is None and time.monotonic() < self.deadline:
                uploader = self._uploader()
                try:
                    self.told = uploader.run()
                except Failed as failed:
                    self._begin_again(uploader, failed.answer)
                check_rules(uploader.exchanges, knows_length=self.plan.knows_length, goes_back=True)
        except Exception as error:
            self.found.append(f"{self.path}: the uploader: {error!r}")

    def _uploader(self) -> Uploader:
        plan = self.plan
        uploader = Uploader(
            self.nodes,
            self.path,
            plan.content,
            is_careful=plan.is_careful,
            piece=plan.piece,
            knows_length=plan.knows_length,
            patience=120,
        )
        pause = plan.seconds * 64 * KIB / max(1, len(plan.content))
        uploader.sent = lambda _: time.sleep(min(0.5, pause))
        uploader.connected = self._connections.add
        return uploader

    def _begin_again(self, uploader: Uploader, answer: Answer | None) -> None:
        """Cancel what is left of an upload: its address never arrived, or Redis has lost it."""
        if uploader.location:
            told = answer.status if answer else None
            self.did[f"uploads begun again because they were told {told}"] += 1
            if told != FAILED_DEPENDENCY:  # so an uploader is told that its transfer has failed: see `Proof.stop`
                self.found.append(f"{self.path}: the uploader had to begin again: {answer}, {uploader.exchanges[-3:]}")
        else:
            self.did["uploads begun again because their address was lost"] += 1
        time.sleep(_PAUSE)
        with suppress(Broken), Request(self.nodes[0] + self.path, "DELETE", {}) as request:
            request.answer()

    # -- the downloader --------------------------------------------------------------------------------------

    def _download(self) -> None:
        """Come back until the file is whole and the uploader knows it, or has waited for long enough."""
        while time.monotonic() < self.deadline:
            if self.told is not None:
                if self._is_whole:
                    return
                # What an uploader has been told has arrived; it may still be under way from our kernel.
                self.deadline = min(self.deadline, time.monotonic() + 10)
            elif self._is_whole:
                self._wait_told()
                if self.told is not None:
                    return
                self.did["downloaders that asked whether their uploader knows"] += 1
            try:
                self._get()
            except Broken:
                self.did["answers to downloaders cut off"] += 1
                self._broken += 1
                if self._broken == self.plan.forgets_after:
                    self.did["downloaders that began again"] += 1
                    self._forget("")
            time.sleep(_PAUSE)

    def _wait_told(self) -> None:
        end = time.monotonic() + _UNSURE
        while self.told is None and time.monotonic() < end:
            time.sleep(0.02)

    def _forget(self, etag: str) -> None:
        self._etag = etag
        self._data.clear()
        self._is_whole = False

    def _get(self) -> None:
        headers = {}
        if self._etag and self._data:
            headers = {"Range": f"bytes={len(self._data)}-", "If-Range": self._etag}
        with Request(self._down[0] + self.path, "GET", headers) as request:
            self._connections.add(request.socket)
            answer = request.head()
            if answer.status == 416:
                assert answer.headers["content-range"] == f"bytes */{len(self._data)}", answer
                assert answer.headers["etag"] == self._etag, answer
            elif answer.status == 206:
                assert answer.headers["content-range"].startswith(f"bytes {len(self._data)}-"), answer
                assert answer.headers["etag"] == self._etag, answer
            elif answer.status == 200:
                self._forget(answer.headers["etag"])
            else:
                assert answer.status in _PASSING, answer
                self.did[f"downloaders told {answer.status}"] += 1
                return
            for piece in request.body(answer):
                at = len(self._data)
                assert self.plan.content[at : at + len(piece)] == piece, f"wrong bytes at {at}"
                self._data += piece
            self._is_whole = True
