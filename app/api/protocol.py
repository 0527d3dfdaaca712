"""uvicorn's protocol with bounds on the head of a request: its size, and the time it may take."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.problems import problem
from app.config import Settings
from app.errors import ApiError, HeadTooLarge, InvalidRequest, RequestTimeout

_LINGER_SECONDS = 2.0


class MakeProtocol(Protocol):
    """How uvicorn makes the protocol of a connection."""

    def __call__(self, *args: Any, **kwargs: Any) -> asyncio.Protocol: ...


def bounded(settings: Settings) -> MakeProtocol:
    """The protocol with the bounds of the settings. What goes beyond is answered, and its connection ends."""
    most, seconds = settings.max_head_bytes, settings.receive_seconds

    class Bounded(HttpToolsProtocol):
        received = 0  # of the head that is coming in
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
            if self.in_head:
                self.received += len(data)
            super().data_received(data)
            if self.in_head and self.received > most and not self.is_refused:
                self._refuse(self._too_large())

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if not self.in_head:  # a further request on the connection
                self._await_head()

        def on_headers_complete(self) -> None:
            self._stop_timer()
            self.in_head = False
            if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > most:
                self.refusal = self._too_large()
                raise self.refusal  # ends the parser, which makes it a bad request
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(self.refusal or InvalidRequest(msg))

        def _await_head(self) -> None:
            self.received, self.in_head = 0, True
            self._stop_timer()
            self.timer = self.loop.call_later(seconds, self._on_time_up)

        def _stop_timer(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def _on_time_up(self) -> None:
            if self.received == 0:
                self.transport.close()  # nothing came that could be answered
            else:
                late = f"The head was not complete after {seconds:g} s (CRONSPACE_RECEIVE_SECONDS)."
                self._refuse(RequestTimeout(late))

        def _too_large(self) -> HeadTooLarge:
            return HeadTooLarge(
                f"The URL and the headers are larger than {most} bytes (CRONSPACE_MAX_HEAD_BYTES)."
            )

        def _refuse(self, error: ApiError) -> None:
            response = problem(error)
            response.headers["connection"] = "close"
            lines = [f"HTTP/1.1 {error.status} {error.title}".encode()]
            lines += [name + b": " + value for name, value in response.raw_headers]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
            # Closed while there is more to read, the connection would be reset, and the answer lost.
            self.is_refused = True
            self.transport.write_eof()
            self._stop_timer()
            self.timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    return Bounded
