"""Sends one source by the protocol of resumable uploads, until the receiver has everything or it has failed for good.

An upload is created empty, so that its address is known before a byte is sent. Then each request brings all the rest.
Whatever breaks, the relay is asked how far the receiver is, and the next request goes on from there. So an answer that
was lost on its way does no harm: the same question tells that the upload is complete.

The SHA-256 of all bytes is computed as they are read. It is known with the last ones, and given to the relay in a
request of its own before these are sent. So the receiver, which asks for it after the last byte, never waits for it.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from relay.access import Token
from relay.client.answers import Refusal
from relay.client.checksum import Checksum
from relay.client.failures import Exit, Failure
from relay.client.http import Answer, Http, Line, Unreachable
from relay.client.patience import Patience
from relay.client.report import Report, share_of
from relay.client.source import Source
from relay.digests import digest_header
from relay.errors import Error, Problem
from relay.names import UploadAddress, encode_name, nfc

_PARTIAL = "application/partial-upload"
#: Seconds between two questions for the progress.
_POLL = 0.5
#: How often in a row the relay must say that it does not have the request that runs, until that counts as broken.
_MISSING_MOST = 4
#: Seconds in which the receiver gets nothing although bytes wait to be sent, until the connection counts as dead. If it
#: is the receiver that takes nothing, another connection does no harm.
_STUCK_MOST = 30.0
#: Maximum seconds to wait for the answer to such a question, and to the last request of a command that is stopped.
_QUESTION_MOST, _FAREWELL_MOST = 10.0, 3.0


def make_token(http: Http, server: str, secret: str) -> Token:
    """Return a new token. Raise Failure, Unreachable."""
    headers = {"accept": "text/plain"} | ({"authorization": f"Bearer {secret}"} if secret else {})
    answer = http.ask("POST", f"{server}/token", headers, b"")
    if answer.status == 401:  # noqa: PLR2004
        raise Failure(
            Exit.REFUSED, "this relay wants a secret: put it into RELAY_TOKEN_SECRET, or into a file (--secret-file)"
        )
    if not answer.is_good and not answer.is_strange:
        raise Refusal.parse(answer.status, answer.body).failure()
    try:
        return Token.parse(b"" if answer.is_strange else answer.body.strip())
    except Problem:
        raise Failure(Exit.REFUSED, f"{server} does not answer as a relay does: check --server") from None


@dataclass
class Upload:
    """One upload of a source to /TOKEN/NAME. Begin with `create`, then `run`."""

    http: Http
    server: str
    token: Token
    source: Source
    report: Report
    #: Seconds to go on trying without a connection.
    give_up: float
    #: Its address, which is a secret. It is empty before `create`, unless it is that of an upload that was stopped.
    url: str = ""
    #: The byte offset to begin with; None if the relay has to be asked.
    _begin: int | None = field(init=False, default=None)
    #: The bytes that the receiver has, as far as the relay has said.
    delivered: int = field(init=False, default=0)
    #: When the relay last said that no receiver is there, in monotonic seconds; 0 if it never did.
    waited_until: float = field(init=False, default=0.0)
    #: Whether the request that runs waits for its connection, and not for the source.
    is_sending: bool = field(init=False, default=False)
    #: That of the bytes that were read so far.
    checksum: Checksum = field(init=False, default_factory=Checksum)

    def create(self) -> None:
        """Make the upload. From then on a receiver finds it. Raise Failure, Unreachable."""
        # Without the header Upload-Draft-Interop-Version, no relay sends a 104, which some proxies take for the answer.
        headers = {"Upload-Complete": "?0", "Content-Type": self.source.media_type}
        if self.source.length is not None:
            headers["Upload-Length"] = str(self.source.length)
        answer = self.http.ask("POST", self._name_url, headers, b"")
        if not answer.is_good:
            raise answer.refusal.failure()
        # Only the last segment is taken, so that a relay cannot send the file elsewhere.
        segment = answer.headers.get("location", "").rpartition("/")[2]
        if not UploadAddress.fits(segment.encode("ascii", "replace")):
            raise Failure(Exit.REFUSED, f"{self.server} does not speak resumable uploads: check --server")
        self.url, self._begin = f"{self._name_url}/{segment}", 0

    def run(self) -> int:
        """Send everything. Return the number of bytes that the receiver has. Raise Failure."""
        patience = Patience(self.give_up)
        offset = self._begin
        refused: Refusal | None = None
        while True:
            reached, asks, why = self.delivered, offset is None, ""
            try:
                self.source.check()
                if offset is None:
                    step = self._ask(refused)
                else:
                    answer = self._append(offset)
                    step, refused = self._learn(answer), answer.refusal
                    why = refused.line or f"the relay answered {answer.status}"
                if isinstance(step, Done):
                    return step.size
                offset = step
            except Unreachable as error:
                offset, refused, why = None, None, str(error)
            if self.delivered > reached:
                patience.moved()
            if offset is not None:
                self.delivered = offset
                self.report.progress(offset, self.source.length)
                if asks:
                    continue
            self._pause(patience, why or "the relay is not ready")

    def cancel(self) -> None:
        """Tell the relay that nothing more will come, so that the receiver need not wait. Never fail."""
        self._leave("DELETE")

    def pause(self) -> None:
        """Tell the relay that this process leaves, so that the receiver learns it at once. Never fail.

        Another process can go on. The relay may not see for long that a connection is closed which has unread bytes.
        """
        self._leave("HEAD")  # the draft: this ends the request that brings bytes

    def _leave(self, method: str) -> None:
        with contextlib.suppress(Unreachable, Failure):
            if self.url:
                self.http.ask(method, self.url, silence=_FAREWELL_MOST)

    @property
    def _name_url(self) -> str:
        return f"{self.server}/{self.token}/{quote(self.source.name, safe='')}"

    def _pause(self, patience: Patience, why: str) -> None:
        pause = patience.failed(time.monotonic())
        if pause is None:
            raise Failure(
                Exit.UNREACHABLE, f"gave up after {self.give_up:g} s: {why}; the relay must be reached to send"
            )
        self.report.reconnecting(patience.attempts, share_of(self.delivered, self.source.length), why)
        time.sleep(pause)

    def _append(self, offset: int) -> Answer:
        """Bring all bytes from `offset` on. Return the answer, which may be a refusal. Raise Unreachable, Failure."""
        self._read_up_to(offset)
        if offset == self.source.length:  # nothing is left to be held back
            self._give_checksum()
        headers = {"Content-Type": _PARTIAL, "Upload-Offset": str(offset), "Upload-Complete": "?1"}
        if self.source.length is not None:
            headers["Content-Length"] = str(self.source.length - offset)
        line = Line()
        with self._watched(line):
            return self.http.ask("PATCH", self.url, headers, self._handed(offset), line)

    def _handed(self, offset: int) -> Iterator[bytes]:
        """Yield the source's bytes. Note whether they are being sent, or the source is being read.

        The last ones are held back until the relay has the checksum.
        """
        pieces = self.source.pieces(offset)
        while piece := next(pieces, b""):
            self.checksum.add(offset, piece)
            offset += len(piece)
            if offset == self.source.length:
                self._give_checksum()
            self.is_sending = True
            yield piece
            self.is_sending = False
        if self.source.length is None:
            self._give_checksum()
        self.is_sending = True

    def _read_up_to(self, offset: int) -> None:
        """Take into the checksum what the receiver has already, and this process has not read. Raise Failure."""
        if self.checksum.done < offset:
            for piece in self.source.pieces(self.checksum.done):
                self.checksum.add(self.checksum.done, piece)
                if self.checksum.done >= offset:
                    return

    def _give_checksum(self) -> None:
        """Give the relay the checksum of the whole file. Raise Unreachable if it cannot take it now.

        If it refuses, the receiver has nothing to compare; whatever else is wrong, the other requests are told.
        """
        answer = self.http.ask("POST", self.url, digest_header(self.checksum.hex), b"")
        if answer.refusal.passes:
            raise Unreachable(answer.refusal.line or f"the relay answered {answer.status}")

    def _learn(self, answer: Answer) -> "Done | int | None":
        """Return what an answer to a PATCH says: all is delivered, or where to go on; None if that must be asked."""
        if answer.is_good and answer.headers.get("upload-complete", "?1") == "?1":
            return Done(_size(answer, self.source.length))
        if answer.refusal.is_(Error.MISMATCHING_OFFSET):
            return _offset(answer)
        return None

    def _ask(self, refused: Refusal | None) -> "Done | int | None":
        """Return how far the receiver is. `refused` is why the last request failed. Raise Failure if all is over."""
        answer = self.http.ask("HEAD", self.url)
        if answer.is_good:
            if answer.headers.get("upload-complete") == "?1":
                return Done(_size(answer, self.source.length))
            return _offset(answer)
        if answer.refusal.passes:
            return None
        raise self._reason(answer, refused)

    def _reason(self, answer: Answer, refused: Refusal | None) -> Failure:
        """Return why the upload has ended. The answer to HEAD has a status only, that to PATCH also words."""
        if refused is not None and refused.code and not refused.is_(Error.SUPERSEDED):
            return refused.failure()
        headers = {"Content-Type": _PARTIAL, "Upload-Offset": "0", "Upload-Complete": "?0"}
        with contextlib.suppress(Unreachable):
            worded = self.http.ask("PATCH", self.url, headers, b"")
            if not worded.is_good:
                return worded.refusal.failure()
        return answer.refusal.failure()

    @contextlib.contextmanager
    def _watched(self, line: Line) -> Iterator[None]:
        """Show the progress while a request runs. Cut its connection if the relay says that it has lost the request."""
        ended = threading.Event()
        watcher = Watcher(self, line.cut, ended)
        threading.Thread(target=watcher.run, daemon=True).start()
        try:
            yield
        finally:
            ended.set()  # nobody waits for the answer to its last question, which may not come for long


@dataclass
class Done:
    """The receiver has everything: `size` bytes."""

    size: int


class Watcher:
    """Asks the relay how far the receiver is, as long as one request runs.

    It is also how a request on a dead connection ends: such a request waits in silence, as one does whose receiver has
    not come yet, but the relay knows that it is not there.
    """

    def __init__(self, upload: Upload, cut: Callable[[], None], ended: threading.Event) -> None:
        self._upload = upload
        self._cut = cut
        self._ended = ended
        self._missing = 0
        self._is_waiting = self._is_stuck = False
        #: What was delivered when that last changed, and when it did, in monotonic seconds.
        self._last, self._moved = -1, 0.0

    def run(self) -> None:
        while not self._ended.wait(_POLL):
            with contextlib.suppress(Unreachable, Failure, ValueError, AttributeError, TypeError):
                self._look()
            if self._missing >= _MISSING_MOST or self._is_stuck:
                self._cut()
                return

    def _look(self) -> None:
        upload = self._upload
        answer = upload.http.ask("GET", f"{upload.server}/{upload.token}", silence=_QUESTION_MOST)
        if not answer.is_good or self._ended.is_set():
            return
        name = encode_name(nfc(upload.source.name))
        mine = next((t for t in json.loads(answer.body).get("transfers", ()) if t.get("name") == name), None)
        state = mine.get("state") if mine else None
        self._missing = self._missing + 1 if state in (None, "interrupted") else 0
        if mine is None:
            return
        if state == "waiting" and not self._is_waiting:
            comes_back = "the receiver to come back" if upload.delivered else "somebody to receive it"
            upload.report.say(f"waiting for {comes_back} …")
        self._is_waiting = state == "waiting"
        if self._is_waiting:
            upload.waited_until = time.monotonic()
        delivered = mine.get("delivered")
        now = time.monotonic()
        if delivered != self._last or self._is_waiting or not upload.is_sending:
            self._last, self._moved = delivered, now
        self._is_stuck = now - self._moved > _STUCK_MOST
        # The nodes do not all know the latest figure, and the next question may go to another one.
        if isinstance(delivered, int) and delivered > upload.delivered and state != "waiting":
            upload.delivered = delivered
            upload.report.progress(delivered, upload.source.length)


def _offset(answer: Answer) -> int:
    try:
        offset = int(answer.headers.get("upload-offset", ""))
    except ValueError:
        offset = -1
    if offset < 0:
        raise Failure(Exit.CORRUPTED, "the relay does not say where to go on: send again")
    return offset


def _size(answer: Answer, length: int | None) -> int:
    """Return the size of the file that was delivered. Raise Failure if it is not the one that was sent."""
    size = _offset(answer)
    if length is not None and size != length:
        raise Failure(Exit.CORRUPTED, f"the relay says that {size} bytes were delivered, of {length}: send again")
    return size
