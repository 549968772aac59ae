"""Receive without the parser."""

import asyncio

from relay.server.discard import Discard
from relay.server.intake import BodyIntake


class DirectReceiver(asyncio.BufferedProtocol):
    """In the place of `HttpProtocol` while a body streams: from the kernel straight into its intake, or a discard."""

    def __init__(self, http: asyncio.Protocol, intake: BodyIntake | Discard) -> None:
        self.intake = intake
        self._http = http

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.intake.room()

    def buffer_updated(self, nbytes: int) -> None:
        self.intake.note_received(nbytes)

    def eof_received(self) -> None:
        self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()
