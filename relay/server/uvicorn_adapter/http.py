"""One client's connection, and what receives the client's bytes: the parser, an intake, or a discard."""

import asyncio

from relay.server.discard import Discard
from relay.server.intake import BodyIntake
from relay.server.uvicorn_adapter.direct import DirectReceiver
from relay.server.uvicorn_adapter.parsing import HttpParsing


class HttpProtocol(HttpParsing):
    """One client's connection, served by uvicorn."""

    # -- called by the transport ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._discard is not None:
            self._discard_directly(self._discard)
            self._discard.note_received(len(data))
            return
        self._unset_keepalive_if_required()
        self.received(data)

    def eof_received(self) -> None:
        self.tls_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._discard is not None:
            self._discard.end()
        self.abandon_requests()  # uvicorn tells only the last, and then answers the others on a closed connection
        self.closed(exc)
        # All of these refer to this protocol. Only the garbage collector could free them and it.
        self._cycles.clear()
        self.cycle = self._direct = None  # type: ignore[assignment]

    # -- called by the server ------------------------------------------------------------------------------

    def shutdown(self) -> None:
        if self._discard is not None:
            self._discard.hurry()
        else:
            super().shutdown()

    # -- reading -------------------------------------------------------------------------------------------

    @property
    def is_read(self) -> bool:
        """Whether the client is being read."""
        return not self.flow.read_paused

    @property
    def untaken(self) -> int:
        """Bytes of the body that were received and have not been taken."""
        direct = self._direct.intake.untaken if self._direct is not None else 0
        return direct + (len(self.cycle.body) if self.cycle is not None else 0)

    def pause_reading(self) -> None:
        self.flow.pause_reading()

    def resume_reading(self) -> None:
        self.flow.resume_reading()

    def receive_into(self, intake: BodyIntake) -> bool:
        """Receive the rest of the newest request's body straight into the intake, after what the parser has kept.

        Return False if the connection is closing, or if the parser had the rest.
        """
        if self.transport.is_closing():
            return False
        kept, self.cycle.body = bytes(self.cycle.body), bytearray()
        intake.add(kept)
        if not intake.missing:
            return False
        self._direct = DirectReceiver(self, intake)
        self._receive_by(self._direct)
        return True

    def stop_receiving(self, missing: int) -> None:
        """Receive by way of the parser again: the rest of this body, `missing` bytes, and then the next request."""
        if self._discard is not None:
            return
        self._direct = None
        if not self.transport.is_closing():
            self._receive_by(self)
        # The old parser would wait for a body that it has not seen.
        self.parser = self._new_parser()
        if not missing:
            self.on_message_complete()
            return
        self._is_preparing = True
        self.parser.feed_data(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % missing)
        self._is_preparing = False

    # -- after the last response ---------------------------------------------------------------------------

    def discard_the_rest(self, discard: Discard) -> None:
        """Close our side of the connection if that is possible, and receive into the discard until it closes. Over TLS,
        our side cannot be closed alone.

        Most clients send nothing more. So the discard receives directly only if something comes.
        """
        self.cancel_keep_alive_timer()
        self.abandon_requests()
        for cycle in self._cycles:
            cycle.body = bytearray()
        self._discard = discard
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._direct is not None:
            self._discard_directly(discard)
        else:
            self.flow.resume_reading()

    def _discard_directly(self, discard: Discard) -> None:
        self._direct = DirectReceiver(self, discard)
        self._receive_by(self._direct)

    def _receive_by(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.pause_reading()  # or uvloop would go on to read as for the protocol before
        self.transport.set_protocol(protocol)
        self.flow.read_paused = False
        self.transport.resume_reading()
