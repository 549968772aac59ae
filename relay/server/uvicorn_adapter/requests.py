"""The requests of a connection, in the order in which they came, and their responses."""

from collections.abc import Sequence

from relay.buffers import Bytes
from relay.server.uvicorn_adapter.base import HttpBase
from relay.server.uvicorn_adapter.cycle import Cycle


class HttpRequests(HttpBase):
    """The part of `HttpProtocol` that knows which requests have no complete response yet."""

    # -- the requests --------------------------------------------------------------------------------------

    @property
    def in_body(self) -> bool:
        """Whether a request's headers are complete and its body is not."""
        return self._in_body

    @property
    def pipelined(self) -> int:
        """How many requests wait until those before them are answered."""
        return len(self.pipeline)

    @property
    def is_unanswered(self) -> bool:
        """Whether the newest request has no complete response yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_answering(self) -> bool:
        """Whether a response has begun and is not complete."""
        cycle = self._answering
        return cycle is not None and cycle.response_started and not cycle.response_complete

    @property
    def is_chunked(self) -> bool:
        """Whether the response that is under way is sent in chunks."""
        return self.is_answering and bool(self._answering.chunked_encoding)

    @property
    def is_response_due(self) -> bool:
        """Whether a request that has arrived whole has no complete response yet."""
        waiting = [cycle for cycle in self._cycles if not cycle.response_complete]
        return bool(waiting) and not (self._in_body and waiting == [self.cycle])

    @property
    def _answering(self) -> Cycle:
        """The request that is being answered: the first without a complete response, or else the last there was."""
        for cycle in self._cycles:
            if not cycle.response_complete:
                return cycle
        return self.cycle

    def drop_incomplete(self) -> None:
        """Forget the newest request if its body is not complete. Another one is being answered."""
        if self._in_body:
            self._in_body = False
            self.pipeline.popleft()
            self._cycles.remove(self.cycle)
            self.cycle = self._cycles[-1]

    def abandon_requests(self) -> None:
        """Tell whoever answers the client's requests that it has left. Do not begin those that wait."""
        self.pipeline.clear()
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False  # our side may be closed, and uvicorn would write to it nevertheless
            cycle.message_event.set()

    # -- the response that is under way --------------------------------------------------------------------

    @property
    def common_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers of every response: its date."""
        return self.server_state.default_headers

    def keep_open(self) -> bool:
        """Do not close the connection when the response that is under way is complete. Return whether there is one."""
        cycle = self._answering
        if cycle is None:
            return False
        cycle.keep_alive = True
        return True

    def join_head(self) -> None:
        """Send the head of the response, which has not begun, together with the beginning of its body."""
        if (cycle := self._answering) is not None:
            cycle.joins_head = True

    def write_body(self, data: Bytes) -> None:
        """Write some of the response's body as the server's `send` does, but without copying it; not its end."""
        self._answering.write_body(data)

    async def wait_until_writable(self) -> None:
        if self.flow.write_paused:
            await self.flow.drain()

    # -- the end of a response -----------------------------------------------------------------------------

    def complete(self, cycle: Cycle) -> None:
        """Go on to the next request, or end the connection. The response of this cycle is complete."""
        if not cycle.keep_alive:
            if self._may_be_sending(cycle):
                self.last_response_complete()
                return
            self.transport.close()
        self.on_response_complete()

    def _may_be_sending(self, cycle: Cycle) -> bool:
        """Return whether the client of this request may still be sending: the rest of it, or bytes behind it.

        Not if it is a download: `Delivery` reads what its client still sends. Over TLS we cannot close our side only,
        and a client that has sent everything may wait for us to close.
        """
        method = cycle.scope["method"]
        if method == "GET":
            return False
        if self._in_body or self._is_faulty or cycle is not self.cycle:
            return True
        return self.scheme == "http" and method not in ("HEAD", "DELETE", "OPTIONS")

    def on_response_complete(self) -> None:
        is_idle = not self.pipeline
        super().on_response_complete()
        self.response_complete(is_idle=is_idle)

    def cancel_keep_alive_timer(self) -> None:
        """Do not close the connection for being idle."""
        self._unset_keepalive_if_required()
