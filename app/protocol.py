"""uvicorn's protocol with bounds on what of a request is not its body, which has its own: the size of head,
framing and trailers, and the time that they may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.config import Settings
from app.errors import ApiError, HeadTooLarge, InvalidRequest, RequestTimeout

_LINGER_SECONDS = 2.0
_FRAMING = 20  # bytes around a chunk, at most: its size and two ends of lines


class MakeProtocol(Protocol):
    """How uvicorn makes the protocol of a connection."""

    def __call__(self, *args: Any, **kwargs: Any) -> asyncio.Protocol: ...


def bounded(settings: Settings, answer_to: Callable[[ApiError], Response]) -> MakeProtocol:
    """The protocol with the bounds of the settings. What goes beyond is answered, and its connection ends."""
    most, seconds = settings.max_head_bytes, settings.receive_seconds

    class Bounded(HttpToolsProtocol):
        received = 0  # of the request that is coming in, what is not its body: head, framing, trailers
        in_head = True
        timer: asyncio.TimerHandle | None = None
        refusal: ApiError | None = None  # why the parser was ended
        is_refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.is_refused:
                return
            self.received += len(data)
            super().data_received(data)
            if self.is_refused:
                return
            if self.received > most:
                self._refuse(self._too_large())
            elif self.timer is None and self.cycle.response_complete:
                self._start_timer()  # uvicorn takes any byte for the beginning of a request

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if not self.in_head:  # a further request on the connection
                self._await_head()

        def on_header(self, name: bytes, value: bytes) -> None:
            if self.in_head:  # trailers would join the headers of a request that is being answered
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > most:
                self.refusal = self._too_large()
                raise self.refusal  # ends the parser, which makes it a bad request
            super().on_headers_complete()  # refuses a target that is none, as of CONNECT
            self.received, self.in_head = 0, False
            self._start_timer()

        def on_body(self, body: bytes) -> None:
            self.received = max(0, self.received - len(body) - _FRAMING)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self.received = 0
            self._stop_timer()
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(self.refusal or InvalidRequest(msg))

        def _await_head(self) -> None:
            self.received, self.in_head = 0, True
            self._start_timer()

        def _start_timer(self) -> None:
            self._stop_timer()
            self.timer = self.loop.call_later(seconds, self._on_time_up)

        def _stop_timer(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def _on_time_up(self) -> None:
            if self.in_head and self.received:
                late = f"The head was not complete after {seconds:g} s (CRONSPACE_RECEIVE_SECONDS)."
                self._refuse(RequestTimeout(late))
            elif self.in_head or self.cycle.response_complete:
                self.transport.close()  # nothing came that could be answered, or it was answered long ago
            else:
                self._start_timer()  # who reads the body has an eye on its time

        def _too_large(self) -> HeadTooLarge:
            return HeadTooLarge(
                f"The URL and the headers are larger than {most} bytes (CRONSPACE_MAX_HEAD_BYTES)."
            )

        def _refuse(self, error: ApiError) -> None:
            """Answer, where that is taken for the answer to what is refused, and end the connection."""
            self.is_refused = True
            self._stop_timer()
            cycle = self.cycle
            if cycle is not None and not cycle.more_body and not cycle.response_complete:
                cycle.keep_alive = False  # a request before it is still to be answered
                return
            if not self.in_head and (cycle.response_started or self.pipeline):
                self.transport.close()
                return
            if not self.in_head:  # its handler waits for the rest of the body
                cycle.disconnected = True
                cycle.message_event.set()
            response = answer_to(error)
            response.headers["connection"] = "close"
            lines = [f"HTTP/1.1 {error.status} {error.title}".encode()]
            lines += [name + b": " + value for name, value in response.raw_headers]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
            # Closed while there is more to read, the connection would be reset, and the answer lost.
            self.transport.write_eof()
            self.timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    return Bounded
