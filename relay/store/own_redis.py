"""A redis-server that belongs to one node: the child of a node without RELAY_REDIS_URL.

It listens on a socket in a folder that only this user can enter, writes nothing to a disk, and ends with the node,
however that ends. It has no more to do with the rest of the code than any other Redis at a `unix://` URL.
"""

import contextlib
import ctypes
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from relay.store.servers import OLDEST, facts_of

log = logging.getLogger("relay.store")

_PROGRAMS = ("redis-server", "valkey-server")
_PREFIX = "relay-store-"
_SOCKET, _LOG = "redis.sock", "redis.log"
#: Maximum bytes of the path of a socket (unix(7)).
_PATH_MAXIMUM = 107
#: Maximum seconds until a redis-server answers for the first time. Usually it takes 0.03 s.
_START = 5.0
#: Seconds before one that has died is replaced, and before the next attempt if that fails.
_PAUSE, _PAUSE_MAXIMUM = 0.1, 5.0
#: Like deploy/redis.conf. Of a transfer whose clients are on one node, the bytes do not pass through Redis. So this is
#: enough for 100,000 uploads that wait. Redis refuses more, instead of taking all memory of the machine.
_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "tcp-backlog": "4096",  # it counts for the socket, too, which refuses connections beyond it
    "save": "",
    "appendonly": "no",
    "daemonize": "no",
    "databases": "1",
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",
    "lazyfree-lazy-user-del": "yes",
    "lazyfree-lazy-expire": "yes",
    "loglevel": "warning",
}
#: From linux/prctl.h: the signal that a process gets when the thread that has started it ends.
_PR_SET_PDEATHSIG = 1


class UnusableError(Exception):
    """There is no redis-server that a node could have for itself. The text says why, in a few words."""


class MissingError(UnusableError):
    """None is installed."""


@contextlib.contextmanager
def own_redis() -> Iterator[str]:
    """Run a redis-server for this process alone, and yield its URL. Raise UnusableError.

    If it dies, another one takes its place at the same URL. It is empty, as after any restart of Redis.
    """
    programs = [path for name in _PROGRAMS if (path := shutil.which(name))]
    if not programs:
        raise MissingError(f"no {' or '.join(_PROGRAMS)} is on PATH")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder())
        child = _started(programs, folder)
        stack.callback(child.stop)
        child.watch()
        yield _url(folder)


def running() -> list[str]:
    """Return the URL of each redis-server that belongs to a node of this user on this machine."""
    return sorted(_url(folder) for folder, is_alive in _folders() if is_alive and (folder / _SOCKET).exists())


def _url(folder: Path) -> str:
    return f"unix://{quote(str(folder / _SOCKET))}"


def _started(programs: list[str], folder: Path) -> "_Child":
    """Return a child that runs the first of these programs that can be used. Raise UnusableError if none can."""
    problems = []
    for program in programs:
        child = _Child(program, folder)
        try:
            child.start()
        except UnusableError as problem:
            problems.append(f"{program}: {problem}")
        else:
            return child
    raise UnusableError("; ".join(problems))


class _Child:
    """One redis-server. Those that take its place are started by one thread, which lives as long as this process:
    the kernel ends the child of a thread when that thread ends."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        #: Held while a process is started, so that `stop` misses none.
        self._starting = threading.Lock()
        self._watch = threading.Thread(target=self._watch_it, name="own-redis", daemon=True)

    def start(self) -> None:
        """Start it, and wait until it answers. Raise UnusableError; then it does not run."""
        with self._starting:
            if self._stopping.is_set():
                return
            self._process = self._run()
        try:
            _check(self._info(self._process), self._process.pid)
        except BaseException:
            self._end(self._process)
            raise

    def watch(self) -> None:
        """From now on, start another one when it dies."""
        self._watch.start()

    def stop(self) -> None:
        """End it. It has nothing to save."""
        with self._starting:
            self._stopping.set()
        if self._process:
            self._end(self._process)
        if self._watch.ident is not None:
            self._watch.join()

    def _watch_it(self) -> None:
        while not self._stopping.is_set():
            if self._process:
                self._process.wait()
            if self._stopping.wait(_PAUSE):
                return
            log.error("the redis-server of this node has ended (%s): its tokens and transfers are lost", self._end_of())
            self._start_again()

    def _start_again(self) -> None:
        pause, said = _PAUSE, ""
        while not self._stopping.is_set():
            try:
                self.start()
            except UnusableError as problem:
                if str(problem) != said and not self._stopping.is_set():
                    said = str(problem)
                    log.error("no other redis-server can be started, and this node tries on: %s", said)
            else:
                return
            self._stopping.wait(pause)
            pause = min(2 * pause, _PAUSE_MAXIMUM)

    def _run(self) -> "subprocess.Popen[bytes]":
        options = [word for name, value in _OPTIONS.items() for word in (f"--{name}", value)]
        paths = ["--dir", str(self._folder), "--unixsocket", str(self._folder / _SOCKET)]
        # It needs none of the settings, some of which are secrets.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
        try:
            with (self._folder / _LOG).open("wb") as output:
                return subprocess.Popen(  # noqa: S603 (a program on PATH, and options of ours)
                    [self._program, *paths, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=_bound_to_this_process(),  # noqa: PLW1509 (it takes no lock)
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise UnusableError(getattr(error, "strerror", None) or str(error)) from None

    def _info(self, process: "subprocess.Popen[bytes]") -> dict[str, Any]:
        """Return what it says of itself, as soon as it answers. Raise UnusableError."""
        deadline = time.monotonic() + _START
        path, once = str(self._folder / _SOCKET), Retry(NoBackoff(), 0)
        with Redis(unix_socket_path=path, socket_timeout=_START, retry=once, protocol=2) as client:
            while True:
                try:
                    return cast(dict[str, Any], client.info("server"))
                except RedisError as error:
                    if process.poll() is not None:
                        raise UnusableError(f"it ends at once ({self._end_of()})") from None
                    if time.monotonic() > deadline:
                        raise UnusableError(f"it does not answer within {_START:g} s ({error})") from None
                time.sleep(0.005)

    def _end_of(self) -> str:
        """Return how it has ended; if by itself, with the last line that it has written."""
        status = self._process.returncode if self._process else 0
        if status < 0:
            return signal.Signals(-status).name
        how = f"exit status {status}"
        with contextlib.suppress(OSError):
            written = (self._folder / _LOG).read_text(errors="replace").split("\n")
            if last := next((line for line in reversed(written) if re.search(r"\w", line)), ""):
                return f"{how}, {_plain(last)}"
        return how

    @staticmethod
    def _end(process: "subprocess.Popen[bytes]") -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it may have started, if it is a script
        process.wait()


def _plain(line: str) -> str:
    """Return a line of a log without the process, role and time before it, as something that can be printed."""
    line = re.sub(r"^\d+:\w+ \d+ \w+ \d+ [\d:.]+ [.*#-] ", "", line.strip())
    return "".join(char for char in line if char.isprintable())[:200]


def _check(info: dict[str, Any], pid: int) -> None:
    """Raise UnusableError if a redis-server that says this of itself is not to be used. `pid`: of our child."""
    if info.get("process_id", pid) != pid:
        raise UnusableError("it starts another process, which could outlive this node")
    facts = facts_of(info)
    if facts.version < OLDEST:
        raise UnusableError(f"{facts.shown} is too old: {'.'.join(map(str, OLDEST))} or newer is needed")


def _bound_to_this_process() -> Callable[[], None]:
    """Return what a child runs before its program: it gets SIGKILL when this process is gone, and no other signal.

    Ctrl-C at a terminal, and a SIGTERM for all processes of a service, are for the node, which drains first and needs
    its Redis for that.
    """
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def bind() -> None:
        if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            raise OSError
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        if os.getppid() != parent:  # it has ended already, and no signal comes
            os._exit(1)

    return bind


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder for this process, which nobody else can enter. Raise UnusableError.

    It is locked as long as this process lives. So the next node can tell which folders are those of dead nodes, and
    removes them.
    """
    for _ in _folders():
        pass
    try:
        folder, lock = _locked_folder()
    except OSError as error:
        raise UnusableError(f"no folder for its socket: {error.strerror}") from None
    try:
        if len(os.fsencode(folder / _SOCKET)) > _PATH_MAXIMUM:
            raise UnusableError(f"the path of its socket would be too long: {folder}. Set TMPDIR to a shorter one")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = _lock(folder)
            if folder.exists():
                return folder, lock
            os.close(lock)  # a node that was just starting has taken it for that of a dead one


def _folders() -> Iterator[tuple[Path, bool]]:
    """Yield each folder of a node of this user, and whether the node lives. Remove those of dead nodes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is gone, or it is not ours
            if folder.lstat().st_uid != os.getuid():
                continue
            try:
                lock = _lock(folder)
            except BlockingIOError:
                yield folder, True
            else:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
                yield folder, False


def _lock(folder: Path) -> int:
    """Lock a folder for this process. Raise BlockingIOError if another process has it."""
    import fcntl  # noqa: PLC0415 (Windows has no such module, and the operators' commands run there, too)

    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(opened)
        raise
    return opened
