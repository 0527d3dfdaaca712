"""The log: one event a line, as text in a terminal and as JSON elsewhere.

Warnings and worse go to stderr, the rest to stdout.
What an event is about goes into fields, ``log.warning("…", extra={"trigger": …})``, never into loose text.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

import msgspec

from app.clock import rfc3339

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}
# What a terminal would obey, and what would begin another line: shown by its code instead.
_SHOWN = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_COLORS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}

_bound: dict[str, Any] = {}  # what every event of this process tells


def bind(**fields: Any) -> None:
    """Let every further event tell these fields, such as the worker's name."""
    _bound.update(fields)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What an event tells beside its message."""
    own = {name: value for name, value in record.__dict__.items() if name not in _OWN}
    return {**_bound, **own}


class JsonFormatter(logging.Formatter):
    """An event as a JSON object; an exception is one of its fields."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            event["error"] = type(error).__name__
            event["traceback"] = "".join(traceback.format_exception(error))
        return msgspec.json.encode(event, enc_hook=str).decode()


class TextFormatter(logging.Formatter):
    """An event for a person: still one line, but for a traceback, which is indented below it."""

    def __init__(self, colored: bool) -> None:
        super().__init__()
        self._colored = colored

    def _paint(self, color: str, text: str) -> str:
        return f"{color}{text}{_PLAIN}" if self._colored and color else text

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().translate(_SHOWN)
        told = " ".join(f"{name}={value}" for name, value in fields_of(record).items()).translate(_SHOWN)
        time = self._paint(_DIM, rfc3339(int(record.created * 1000)))
        level = self._paint(_COLORS.get(record.levelno, ""), f"{record.levelname:<8}")
        line = f"{time} {level} {message}"
        if told:
            line += f" {self._paint(_DIM, told)}"
        if record.exc_info and record.exc_info[1]:
            trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
            line += "".join(f"\n    {part.translate(_SHOWN)}" for part in trace.split("\n"))
        return line


class _Below(logging.Filter):
    """Lets through what is less than a warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING


def set_up_logging(level: str, format: str = "auto") -> None:
    """Set the process's logging up once."""
    usual, loud = _handler(sys.stdout, format), _handler(sys.stderr, format)
    usual.addFilter(_Below())
    loud.setLevel(logging.WARNING)
    logging.basicConfig(level=level, handlers=[usual, loud], force=True)
    logging.captureWarnings(True)
    # A log that can't be written any more (a closed pipe, a full disk) is no fault of who writes, and a
    # traceback on stderr for each event would tell no one more.
    logging.raiseExceptions = False
    sys.excepthook = _log_uncaught
    for chatty in ("asyncio", "httpx", "arq.worker"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _handler(stream: TextIO, format: str) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    is_text = format == "text" or (format == "auto" and stream.isatty())
    handler.setFormatter(TextFormatter(stream.isatty()) if is_text else JsonFormatter())
    return handler


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("app").critical("the process ends by an error", exc_info=(kind, error, trace))
