"""The log: one event a line, on the right stream, with fields."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from app.logs import TextFormatter

PROGRAM = """
import logging, sys
from app.logs import bind, set_up_logging
set_up_logging(*sys.argv[1:])
log = logging.getLogger("app.example")
bind(worker="w1")
log.debug("quiet")
log.info("a line\\nand another", extra={"workspace": "acme", "attempt": 2})
try:
    raise ValueError("oh\\nno")
except ValueError:
    log.exception("%s went wrong", "it")
import warnings
warnings.warn("old")
raise KeyError("uncaught")
"""


def run(*arguments: str) -> tuple[list[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    return done.stdout.splitlines(), done.stderr.splitlines()


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_log_that_cant_be_written_ends_nothing_and_says_nothing_more(closed: str) -> None:
    program = """
import logging
from app.logs import set_up_logging
set_up_logging("INFO")
for _ in range(3):
    logging.info("usual")
    logging.warning("loud")
"""
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, closed: writing}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **streams) as process:  # type: ignore[call-overload]
        os.close(writing)
        out, err = process.communicate(timeout=30)
    told = parsed((err if closed == "stdout" else out).splitlines())
    assert [one["message"] for one in told] == (["loud"] if closed == "stdout" else ["usual"]) * 3


def test_outside_a_terminal_each_event_is_one_json_object_with_its_fields() -> None:
    usual, loud = map(parsed, run("INFO"))
    (event,) = usual
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "info",
        "logger": "app.example",
        "message": "a line\nand another",
        "worker": "w1",
        "workspace": "acme",
        "attempt": 2,
    }
    assert [one["level"] for one in loud] == ["error", "warning", "critical"]


def test_a_traceback_is_a_field_also_that_of_what_ends_the_process() -> None:
    _, loud = map(parsed, run("INFO"))
    failed, warned, ended = loud
    assert (failed["message"], failed["error"]) == ("it went wrong", "ValueError")
    assert failed["traceback"].startswith("Traceback")
    assert "oh\nno" in failed["traceback"]
    assert "old" in warned["message"]
    assert (ended["error"], "uncaught" in ended["traceback"]) == ("KeyError", True)


def test_levels_decide_what_is_told() -> None:
    assert len(run("DEBUG")[0]) == 2
    usual, loud = run("ERROR")
    assert (len(usual), len(loud)) == (0, 2)


def test_text_is_for_people_and_still_a_line_an_event() -> None:
    usual, loud = run("INFO", "text")
    assert len(usual) == 1
    assert usual[0].endswith("INFO     a line\\nand another worker=w1 workspace=acme attempt=2")
    assert "\x1b" not in usual[0]
    assert loud[0].endswith("ERROR    it went wrong worker=w1")
    assert loud[1].startswith("    Traceback")


def test_what_others_wrote_commands_no_terminal() -> None:
    try:
        raise ValueError("\x1b[2Jnothing here")
    except ValueError:
        record = logging.LogRecord("app", 40, "f", 1, "%s", ("\x1b]0;title\x07\r\u2028x",), sys.exc_info())
    record.tag = "\x9b31mred"
    line = TextFormatter(colored=False).format(record)
    assert "\\x1b]0;title\\x07\\r\\u2028x tag=\\x9b31mred" in line
    assert line.endswith("ValueError: \\x1b[2Jnothing here")
    assert not set(line) & {"\x1b", "\x07", "\r", "\x9b", "\u2028"}


@pytest.mark.parametrize(("format", "start"), [("auto", "\x1b"), ("json", "{")])
def test_a_terminal_gets_text_unless_told_otherwise(format: str, start: str) -> None:
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "INFO", format],
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=30,
        )
        assert os.read(ours, 10_000).decode().startswith(start)
    finally:
        os.close(ours)
        os.close(theirs)


def test_arqs_own_health_line_is_not_written_every_few_seconds() -> None:
    program = (
        "import logging, sys\nfrom app.logs import set_up_logging\nset_up_logging(sys.argv[1], 'json')\n"
        "logging.getLogger('arq.worker').info('recording health')\n"
        "logging.getLogger('arq.worker').warning('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, "INFO"], capture_output=True, text=True, timeout=30)
    assert "recording health" not in done.stdout + done.stderr
    assert "heard" in done.stderr
