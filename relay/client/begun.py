"""Which uploads this user has begun, so that `relay send --resume` can go on with one that was stopped.

Each has a small file, which only the user can read: it has the token and the address of the upload, which are secrets.
As arguments, others on the machine could see them. The command that sends has it locked; it is deleted when the upload
ends.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from relay.access import Token
from relay.client.failures import Exit, Failure
from relay.client.links import parse_token
from relay.client.source import Source

#: Seconds after which a file is of no use, because no relay keeps an upload so long. A command that was killed left it.
_STALE = 24 * 3600.0


def _folder() -> Path:
    """Return where these files are. Source: the XDG Base Directory Specification. Raise RuntimeError without a home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".local" / "state") / "relay" / "uploads"


class Begun:
    """The file of one upload: of these paths, to this server, under this name (empty: that of the file)."""

    def __init__(self, server: str, paths: Sequence[Path], name: str, source: Source) -> None:
        self._fingerprint = source.fingerprint
        self._kept = ""
        self._lock: BinaryIO | None = None
        self._what = json.dumps([server, [str(path.absolute()) for path in paths], name])
        options = ["--server", server, *(["--name", name] if name else [])]
        self._arguments = shlex.join([*options, *(["--"] if str(paths[0]).startswith("-") else []), *map(str, paths)])

    @property
    def _path(self) -> Path:
        return _folder() / f"{hashlib.sha256(self._what.encode()).hexdigest()[:32]}.json"

    @property
    def is_kept(self) -> bool:
        """Whether there is a file of an upload that this command has begun or goes on with."""
        return bool(self._kept)

    @property
    def command(self) -> str:
        """The command that goes on with it."""
        return f"relay send --resume {self._arguments}"

    def keep(self, token: Token, url: str) -> None:
        """Write the file. If that is not possible, or the source cannot be read again, there is no going on."""
        if not self._fingerprint:
            return
        text = json.dumps({"token": str(token), "url": url, "fingerprint": self._fingerprint})
        with contextlib.suppress(OSError, RuntimeError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._clean()
            self._path.unlink(missing_ok=True)
            self._lock = open(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b")  # noqa: PTH123, SIM115
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._lock.write(text.encode())
            self._lock.flush()
            self._kept = text

    def find(self, *, unchanged: bool = True) -> tuple[Token, str]:
        """Return the token and the address of the upload that was stopped. Raise Failure.

        `unchanged`: the source must be what it was.
        """
        try:
            self._lock = self._path.open("r+b")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = self._lock.read().decode()
            found = json.loads(text)
            token, url, fingerprint = parse_token(str(found["token"])), str(found["url"]), found["fingerprint"]
            if urlsplit(url).scheme not in ("http", "https"):
                raise ValueError
        except BlockingIOError:
            raise Failure(Exit.REFUSED, "another `relay send` is sending this: stop that one first") from None
        except (OSError, RuntimeError, ValueError, KeyError, TypeError):
            raise Failure(Exit.REFUSED, "no upload of this was stopped here: send it without --resume") from None
        if unchanged and fingerprint != self._fingerprint:
            raise Failure(Exit.LOCAL, "this was changed since the upload was stopped: send it without --resume")
        self._kept = text
        return token, url

    def forget(self) -> None:
        """Delete the file, because the upload has ended, unless it is that of a later one. Never fail."""
        if self._kept:
            with contextlib.suppress(OSError, ValueError):
                if self._path.read_text() == self._kept:
                    self._path.unlink()
        self._kept = ""
        self.close()

    def close(self) -> None:
        """Leave the file to a later command."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def _clean(self) -> None:
        for path in self._path.parent.glob("*.json"):
            if path.stat().st_mtime < time.time() - _STALE:
                path.unlink()
