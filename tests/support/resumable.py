"""A client of resumable uploads, written from draft-ietf-httpbis-resumable-upload-11 alone; and the draft's rules, as a
table that is applied to each of its requests and their answers."""

import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from tests.support.http1 import Answer, Broken, Request

PARTIAL = "application/partial-upload"
PROBLEMS = "https://iana.org/assignments/http-problem-types#"
#: Seconds before the first retry, and the maximum; each is twice the one before.
_FIRST_PAUSE, _LONGEST = 0.05, 1.0
_PIECE = 64 * 1024
#: Maximum seconds to wait for a 104 before the body is sent.
_INTERIM = 5.0


class Cut(Exception):
    """Raised by a hook of the test to break the connection."""


class Failed(Exception):
    """The upload has failed, by the draft's rules: the client may not go on."""

    def __init__(self, answer: Answer | None) -> None:
        super().__init__(f"{answer.status} {answer.body!r}" if answer else "no answer, and no address to return to")
        self.answer = answer


@dataclass
class Exchanged:
    """One request of the client, and its answer; None if there was none."""

    method: str
    path: str
    headers: dict[str, str]
    answer: Answer | None = None


class Uploader:
    """Uploads one file by the protocol, through any of the nodes, until it is whole or has failed.

    `is_careful`: create the upload with an empty request. `piece`: the size of each part; None: one part.
    `sent` is called before each piece is sent, and at the end, with the byte offset in the file, and may raise Cut.
    `got` is called with each answer, and may raise Cut, as if the answer was lost.
    `connected` is called with the connection of each request.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        path: str,
        data: bytes,
        *,
        is_careful: bool = False,
        piece: int | None = None,
        version: int | None = 8,
        knows_length: bool = True,
        patience: float = 30,
    ) -> None:
        self.nodes = nodes
        self.data = data
        self.sent: Callable[[int], None] = lambda _: None
        self.got: Callable[[Answer], None] = lambda _: None
        self.connected: Callable[[socket.socket], None] = lambda _: None
        #: Each request so far.
        self.exchanges: list[Exchanged] = []
        #: The address of the upload, once it is known. A test may set it, and the offset to begin with (None: ask).
        self.location = ""
        self.offset: int | None = None
        #: The answer that says that the upload is complete.
        self.result: Answer | None = None
        self.error: Exception | None = None
        self._path = path
        self._is_careful = is_careful
        self._piece = piece
        self._version = version
        self._knows_length = knows_length
        self._patience = patience
        self._attempt = 0
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Run in the background."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def finish(self, timeout: float = 120) -> Answer:
        """Return the answer that says that the upload is complete. Raise Failed."""
        assert self._thread is not None
        self._thread.join(timeout)
        assert not self._thread.is_alive(), self.exchanges[-3:]
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def run(self) -> Answer:
        """Upload everything. Return the answer that says so. Raise Failed."""
        offset = self.offset if self.location else self._create()
        while self.result is None:
            offset = self._append(offset) if offset is not None else self._ask()
        return self.result

    def _run(self) -> None:
        try:
            self.run()
        except Exception as error:
            self.error = error

    # -- the requests ----------------------------------------------------------------------------------------

    def _create(self) -> int | None:
        """Create the upload. Return the offset to go on from, None if that is not known."""
        end = 0 if self._is_careful else self._end(0)
        is_last = not self._is_careful and end == len(self.data)
        answer = self._send("PUT", self._path, 0, end, is_last=is_last)
        if answer is not None and answer.status < 300:
            if is_last:
                self.result = answer
                return None
            self.location = answer.headers["location"]
            return int(answer.headers["upload-offset"])
        if not self.location or (answer is not None and answer.status < 500):
            raise Failed(answer)
        return None

    def _append(self, offset: int) -> int | None:
        end = self._end(offset)
        is_last = end == len(self.data)
        answer = self._send("PATCH", self.location, offset, end, is_last=is_last)
        if answer is None or answer.status >= 500:
            return None
        if answer.headers.get("upload-complete") == "?1":
            self.result = answer
            return None
        if answer.status == 409 and "upload-offset" in answer.headers:
            return int(answer.headers["upload-offset"])
        if answer.status >= 300:
            raise Failed(answer)
        return int(answer.headers.get("upload-offset", end))

    def _ask(self) -> int | None:
        answer = self._send("HEAD", self.location, 0, 0)
        if answer is None or answer.status >= 500:
            return None
        if answer.status >= 300:
            raise Failed(answer)
        if answer.headers["upload-complete"] == "?1":
            self.result = answer
            return None
        return int(answer.headers["upload-offset"])

    def _end(self, offset: int) -> int:
        return min(len(self.data), offset + (self._piece or len(self.data)))

    def _send(self, method: str, path: str, begin: int, end: int, *, is_last: bool = False) -> Answer | None:
        """Send one request. Return its answer, or None if there was none; then pause before the next one."""
        headers = {} if self._version is None else {"Upload-Draft-Interop-Version": str(self._version)}
        if method != "HEAD":
            headers |= {"Upload-Complete": "?1" if is_last else "?0", "Content-Length": str(end - begin)}
            if self._knows_length:
                headers["Upload-Length"] = str(len(self.data))
        if method == "PATCH":
            headers |= {"Upload-Offset": str(begin), "Content-Type": PARTIAL}
        exchanged = Exchanged(method, path, {name.lower(): value for name, value in headers.items()})
        self.exchanges.append(exchanged)
        node = self.nodes[self._attempt % len(self.nodes)]
        try:
            with Request(node + path, method, headers, on_interim=self._note) as request:
                if method == "PUT" and end > begin and self._version is not None:
                    request.wait_interim(_INTERIM)  # 10.1: a client might wait for the 104 for a limited time
                self.connected(request.socket)
                request.send_body(self._pieces(begin, end))
                self.sent(end)
                answer = request.answer()
                exchanged.answer = answer
                self.got(answer)
        except (Broken, Cut):
            self._pause(None)
            return None
        if answer.status >= 500:
            self._pause(answer)
        else:
            self._attempt_ok()
        return answer

    def _pieces(self, begin: int, end: int) -> Iterator[bytes]:
        for at in range(begin, end, _PIECE):
            self.sent(at)
            yield self.data[at : min(end, at + _PIECE)]

    def _note(self, interim: Answer) -> None:
        known = interim.headers.get("upload-draft-interop-version") == str(self._version)
        if interim.status == 104 and known and "location" in interim.headers:
            self.location = interim.headers["location"]

    _pauses = 0

    def _attempt_ok(self) -> None:
        self._pauses = 0

    def _pause(self, answer: Answer | None) -> None:
        self._attempt += 1
        self._pauses += 1
        pause = min(_LONGEST, _FIRST_PAUSE * 2**self._pauses)
        if answer is not None:
            pause = float(answer.headers.get("retry-after", pause))
        if self._pauses * pause > self._patience:
            raise Failed(answer)
        time.sleep(pause)


# -- the draft's rules ---------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """One sentence of the draft: when it applies, and whether an exchange keeps it."""

    says: str
    applies: Callable[[Exchanged, Answer], bool]
    is_kept: Callable[[Exchanged, Answer], bool]


def _is_2xx(answer: Answer) -> bool:
    return 200 <= answer.status < 300


def _problem(answer: Answer) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer.body)
    return found


def _announcements(answer: Answer) -> list[Answer]:
    return [interim for interim in answer.interim if interim.status == 104]


RULES = (
    Rule(
        "5.1.2: a creation that is not the whole file gets Location and Upload-Limit",
        lambda e, a: e.method == "PUT" and _is_2xx(a) and e.headers["upload-complete"] == "?0",
        lambda e, a: a.status == 201 and "location" in a.headers and "upload-limit" in a.headers,
    ),
    Rule(
        "5.1.2: the same Location in interim and final answers, unless the upload is complete",
        lambda e, a: "location" in a.headers and a.headers.get("upload-complete") != "?1",
        lambda e, a: all(i.headers["location"] == a.headers["location"] for i in _announcements(a)),
    ),
    Rule(
        "5.1.2 and appendix B: 104 for a creation has Location, limits, and the client's interop version",
        lambda e, a: e.method == "PUT",
        lambda e, a: all(
            {"location", "upload-limit"} <= i.headers.keys()
            and i.headers["upload-draft-interop-version"] == e.headers["upload-draft-interop-version"]
            for i in _announcements(a)
        ),
    ),
    Rule(
        "appendix B: no 104 without the header Upload-Draft-Interop-Version, or to another version",
        lambda e, a: e.headers.get("upload-draft-interop-version") not in ("8", "9"),
        lambda e, a: not _announcements(a),
    ),
    Rule(
        "5.3.2: no 104 for an append has Location",
        lambda e, a: e.method == "PATCH",
        lambda e, a: not any("location" in i.headers for i in _announcements(a)),
    ),
    Rule(
        "5.2.2: HEAD tells offset, completeness and limits, and is not cached",
        lambda e, a: e.method == "HEAD" and _is_2xx(a),
        lambda e, a: (
            {"upload-offset", "upload-complete", "upload-limit"} <= a.headers.keys()
            and a.headers.get("cache-control") == "no-store"
        ),
    ),
    Rule(
        "5.2.2 and 5.4.2: no 301 and 302",
        lambda e, a: e.method in ("HEAD", "DELETE"),
        lambda e, a: a.status not in (301, 302),
    ),
    Rule(
        "5.3.2: Upload-Complete is true in the answer to the last part, also if that is the first",
        lambda e, a: e.method in ("PATCH", "PUT") and _is_2xx(a) and e.headers["upload-complete"] == "?1",
        lambda e, a: a.headers["upload-complete"] == "?1",
    ),
    Rule(
        "5.3.2: Upload-Complete is false in the answer to any other part",
        lambda e, a: e.method == "PATCH" and _is_2xx(a) and e.headers["upload-complete"] == "?0",
        lambda e, a: a.headers["upload-complete"] == "?0",
    ),
    Rule(
        "5.3.2 and 8.1: 409 has the right offset, and the type and the members of its problem",
        lambda e, a: a.status == 409 and "upload-offset" in a.headers,
        lambda e, a: (
            a.headers["upload-complete"] == "?0"
            and a.headers["content-type"] == "application/problem+json"
            and _problem(a)["type"] == PROBLEMS + "mismatching-upload-offset"
            and _problem(a)["expected-offset"] == int(a.headers["upload-offset"])
            and _problem(a)["provided-offset"] == int(e.headers["upload-offset"])
        ),
    ),
    Rule(
        "4.1.4: 413 has Upload-Limit",
        lambda e, a: a.status == 413,
        lambda e, a: "upload-limit" in a.headers,
    ),
    Rule(
        "4.1: offsets and lengths are integers, completeness is a boolean (RFC 9651)",
        lambda e, a: True,
        lambda e, a: all(
            re.fullmatch(pattern, each.headers.get(name, default))
            for each in (a, *a.interim)
            for name, pattern, default in (
                ("upload-offset", "[0-9]{1,15}", "0"),
                ("upload-length", "[0-9]{1,15}", "0"),
                ("upload-complete", r"\?[01]", "?0"),
                ("upload-limit", r"[a-z-]+=[0-9]{1,15}(, [a-z-]+=[0-9]{1,15})*", "max-size=0"),
            )
        ),
    ),
    Rule(
        "5.3.1: a client sends the media type, the offset and the completeness with a part",
        lambda e, a: e.method == "PATCH",
        lambda e, a: e.headers["content-type"] == PARTIAL and {"upload-offset", "upload-complete"} <= e.headers.keys(),
    ),
    Rule(
        "5.3.2: an error does not claim to come from the resource that processed the whole upload",
        lambda e, a: a.status >= 400,
        lambda e, a: a.headers.get("upload-complete") != "?1",
    ),
)


def check_rules(exchanges: Sequence[Exchanged], *, knows_length: bool = True, goes_back: bool = False) -> None:
    """Check every exchange by the table, and every two that follow each other.

    `goes_back`: the downloader comes back with less than it had, so that offsets decrease. The draft forbids that
    (4.1.1), because it assumes that the server stores the file.
    """
    for exchanged in exchanges:
        if (answer := exchanged.answer) is None:
            continue
        for rule in RULES:
            assert not rule.applies(exchanged, answer) or rule.is_kept(exchanged, answer), (rule.says, exchanged)
        if exchanged.method == "HEAD" and _is_2xx(answer) and knows_length:
            assert "upload-length" in answer.headers, "5.2.2: HEAD tells the length that the client has told"
    for before, after in itertools.pairwise(exchanges):
        # 6: clients have to be able to use received offsets.
        if before.method == "HEAD" and before.answer and after.method == "PATCH" and after.answer:
            same = before.answer.headers.get("upload-offset") == after.headers["upload-offset"]
            assert goes_back or not same or after.answer.status != 409, (before, after)
