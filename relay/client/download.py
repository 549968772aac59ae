"""Receives one upload, by as many requests as it takes.

A HEAD tells what there is and takes nothing. So an existing file, or a full disk, is found before the upload is taken.
Each GET then names the upload by its ETag (`If-Match`) and begins at the byte that is missing (`Range`): a relay that
has another upload by now refuses, and the bytes of two uploads never get into one file.

The SHA-256 of all bytes is compared with the sender's at the end. A sender that reads its file once knows it only then,
so the relay is asked for it after the last byte, unless it was in the headers.
"""

import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.client.absence import Absence
from relay.client.answers import Refusal
from relay.client.checksum import Checksum
from relay.client.failures import Differs, Exit, Failure, Useless
from relay.client.http import Answer, Http, Unreachable, pieces, whole
from relay.client.links import Address
from relay.client.naming import name_in, safe_name
from relay.client.offer import NUMBER, End, Offer, checksum_in
from relay.client.patience import Patience
from relay.client.report import Report, share_of
from relay.errors import Error

if TYPE_CHECKING:
    import httpx

_OK, _PARTIAL, _CONDITION, _RANGE = 200, 206, 412, 416
#: Maximum seconds that one request waits for the sender: short enough for most proxies.
_WAIT_MOST = 50
#: Seconds to wait for another download, which may be our own of before, to go away: relay needs two to find out.
_TAKEN_MOST = 10.0
#: Seconds to go on asking for the checksum: the file is here, and its sender is told so.
_CHECKSUM_MOST = 20.0
#: Maximum seconds to wait for the answer to a question that is only asked beside the download.
_ASK_MOST = 20.0
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


@dataclass
class Download:
    """The download of an address. Begin with `look`, then `pieces`."""

    http: Http
    address: Address
    report: Report
    #: Seconds to wait for the sender, and to go on trying without a connection.
    wait: float
    give_up: float
    #: The bytes that were received, those of earlier runs included.
    done: int = field(init=False, default=0)
    _length: int | None = field(init=False, default=None)
    #: That of the bytes that were received, and the sender's, as far as the relay has said; empty if it has not.
    checksum: Checksum = field(init=False, default_factory=Checksum)
    _sent: str = field(init=False, default="")
    #: Whether the two were compared. It stays false if the sender gave none, as curl does not by itself.
    is_compared: bool = field(init=False, default=False)
    #: When another download was first in the way, in monotonic seconds; 0 if none was.
    _taken: float = field(init=False, default=0.0)

    def look(self) -> Offer:
        """Wait for the sender. Return what there is, which remains there. Raise Failure."""
        deadline = time.monotonic() + self.wait
        patience = Patience(self.give_up)
        is_first = True
        while True:
            left = max(0.0, deadline - time.monotonic())
            seconds = 0 if is_first else min(_WAIT_MOST, int(left))
            try:
                answer = self.http.ask("HEAD", f"{self.address.url}?wait={seconds}")
            except Unreachable as error:
                self._pause(patience, str(error))
                continue
            if answer.status == _OK:
                return self._offer(answer.headers)
            refusal = answer.refusal
            if answer.status == 404:  # noqa: PLR2004
                if left <= 0:
                    raise Failure(Exit.REFUSED, "nobody is sending this: ask the sender to start, or --wait longer")
                if is_first:
                    doubt = " (what answers may be no relay: check the link)" if answer.is_strange else ""
                    self.report.say(f"waiting for the sender …{doubt}")
                is_first = False
                patience.moved()
                # A relay that answers at once, although it was asked to wait, must not be asked without a pause.
                time.sleep(min(left, 0.2))
            elif refusal.passes:
                self._pause(patience, f"the relay answered {answer.status}")
            else:
                raise refusal.failure()

    def end_of(self, etag: str) -> End | None:
        """Return how an upload ended; None if it is there, or the relay cannot say."""
        try:
            answer = self._ask(etag)
        except Unreachable:
            return None
        return End.parse(answer)

    def known(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the first bytes of an upload, which are here already. `pieces` goes on after them."""
        for piece in pieces:
            self.checksum.add(self.checksum.done, piece)
            yield piece

    def check(self, end: End) -> None:
        """Raise Useless unless all that an upload delivered, which has ended, is `known`."""
        self.done = self.checksum.done
        if end.size is not None and self.done < end.size:
            raise Useless(
                Exit.LEFT,
                f"all {end.size} bytes had reached this machine, but only {self.done} were written before "
                "`relay receive` was stopped: ask the sender to send again",
            )
        self._compare(end.sha256)

    def pieces(self, offer: Offer) -> Iterator[bytes]:
        """Yield the bytes that are not here yet, through all breaks of the connection. Raise Failure.

        When it ends, everything has been yielded, and is what was sent, as far as that is known.
        """
        with Absence(lambda: self.done, lambda: self._ask(offer.etag), self.report.say).watched():
            for piece in self._pieces(offer, self.checksum.done):
                self.checksum.add(self.done, piece)
                yield piece
        self._compare(self._sent or self._ask_checksum(offer))

    def _compare(self, sent: str) -> None:
        if sent not in ("", self.checksum.hex):
            raise Differs
        self.is_compared = bool(sent)

    def _pieces(self, offer: Offer, start: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on, through all breaks of the connection. Raise Failure."""
        self.done = start
        self.report.progress(self.done, offer.length)
        patience = Patience(self.give_up)
        while True:
            reached, refusal = self.done, None
            try:
                refusal = yield from self._leg(offer)
                if refusal is None:
                    return
                why = refusal.line or f"the relay answered {refusal.status}"
            except Unreachable as error:
                why = str(error)
            if offer.length is not None and self.done == offer.length and self.done > reached:
                return  # only the end of the last response was lost
            if self.done > reached:
                patience.moved()
            self._pause(patience, why, refusal)

    def _leg(self, offer: Offer) -> Generator[bytes, None, Refusal | None]:
        """Yield what one request brings. Return why there is more to ask for; None if all is there.

        Raise Unreachable if it breaks off, and Failure if there is nothing to go on with.
        """
        headers = {"if-match": offer.etag} | ({"range": f"bytes={self.done}-"} if self.done else {})
        with self.http.open("GET", f"{self.address.url}?wait=0", headers) as response:
            if response.status_code not in (_OK, _PARTIAL):
                answer = whole(response)
                if answer.status == _RANGE and self._has_all(answer.headers):
                    return None
                return self._refused(answer.refusal, offer.etag)
            skipped = self._skipped(response, offer)
            self._sent = checksum_in(response.headers) or self._sent
            for piece in pieces(response):
                if skipped >= len(piece):
                    skipped -= len(piece)
                    continue
                fresh = piece[skipped:] if skipped else piece
                skipped = 0
                if offer.length is not None and self.done + len(fresh) > offer.length:
                    raise Failure(Exit.CORRUPTED, f"more than the {offer.length} bytes came that were announced")
                yield fresh
                self.done += len(fresh)
                self.report.progress(self.done, offer.length)
        if offer.length is not None and self.done < offer.length:
            raise Unreachable("the connection ended too early")
        return None

    def _skipped(self, response: "httpx.Response", offer: Offer) -> int:
        """Return how many bytes of a response are here already. Raise Failure unless it is the rest of the offer."""
        headers = response.headers
        if headers.get("content-encoding", "identity") != "identity" or headers.get("etag") != offer.etag:
            raise Failure(Exit.CORRUPTED, "what came is not the file that was announced: receive it again")
        if response.status_code == _OK:
            return self.done
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if match is None or int(match[1]) != self.done or match[3] not in (str(offer.length), "*"):
            raise Failure(Exit.CORRUPTED, "what came is not the rest of the file: receive it again")
        return 0

    def _has_all(self, headers: Mapping[str, str]) -> bool:
        return headers.get("content-range") == f"bytes */{self.done}"

    def _refused(self, refusal: Refusal, etag: str) -> Refusal:
        """Return a refusal that may be different in a moment. Raise Failure if it is final."""
        if refusal.status == _CONDITION or refusal.is_(Error.NO_UPLOAD):
            raise self._over(etag)
        if refusal.is_(Error.TAKEN):
            # It may be our own connection of before, which the relay has not found dead yet.
            now = time.monotonic()
            self._taken = self._taken or now
            if now - self._taken < _TAKEN_MOST:
                return refusal
        if refusal.passes:
            return refusal
        raise refusal.failure()

    def _over(self, etag: str) -> Failure:
        """Return why there is nothing to go on with."""
        end = self.end_of(etag)
        said = end.why(self.done) if end else "the sender has left"
        return Failure(Exit.LEFT, f"{said}: ask the sender to send again")

    def _offer(self, headers: Mapping[str, str]) -> Offer:
        length = headers.get("content-length")
        if length is not None and not NUMBER.fullmatch(length):
            raise Failure(Exit.CORRUPTED, "the relay announces no sensible length")
        self._length = None if length is None else int(length)
        self._sent = checksum_in(headers)
        disposition = name_in(headers.get("content-disposition", ""))
        return Offer(
            name=safe_name(disposition, self.address.name),
            etag=headers.get("etag", ""),
            length=self._length,
            media_type=headers.get("content-type", ""),
        )

    def _ask_checksum(self, offer: Offer) -> str:
        """Return the sender's checksum of the file that was just received; empty if it gave none."""
        patience = Patience(min(self.give_up, _CHECKSUM_MOST))
        while True:
            try:
                answer = self._ask(offer.etag)
                if not answer.refusal.passes:
                    return checksum_in(answer.headers)
                why = f"the relay answered {answer.status}"
            except Unreachable as error:
                why = str(error)
            pause = patience.failed(time.monotonic())
            if pause is None:
                self.report.say(f"all bytes are here, but the sender's checksum could not be asked for: {why}")
                return ""
            time.sleep(pause)

    def _ask(self, etag: str) -> Answer:
        """Ask how an upload is, or how it ended. Raise Unreachable."""
        return self.http.ask("HEAD", self.address.url, {"if-match": etag}, silence=_ASK_MOST)

    def _pause(self, patience: Patience, why: str, refusal: Refusal | None = None) -> None:
        pause = patience.failed(time.monotonic())
        if pause is None:
            raise self._given_up(why, refusal)
        self.report.reconnecting(patience.attempts, share_of(self.done, self._length), why)
        time.sleep(pause)

    def _given_up(self, why: str, refusal: Refusal | None) -> Failure:
        if refusal is not None:
            return Failure(Exit.LEFT if self.done else refusal.exit, f"gave up after {self.give_up:g} s: {why}")
        return Failure(Exit.UNREACHABLE, f"gave up after {self.give_up:g} s: the relay cannot be reached ({why})")
