"""`cronspace probe`, as a HEALTHCHECK runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lab.processes import free_port


def probe(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "probe"]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


@contextmanager
def answering(live: int) -> Iterator[str]:
    """A process that answers /live like this, and all else with 404; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(live if self.path == "/live" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield str(server.server_port)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("setting", ["PORT", "CRONSPACE_WORKER_PORT"])
def test_a_process_that_answers_is_healthy(setting: str) -> None:
    with answering(200) as port:
        assert probe(**{setting: port}).returncode == 0


def test_a_worker_is_asked_on_its_own_port() -> None:
    with answering(200) as api:
        done = probe(PORT=api, CRONSPACE_WORKER_PORT=str(free_port()))
    assert done.returncode == 1
    assert "nothing answers" in done.stderr


def test_a_process_that_says_so_is_not_healthy() -> None:
    with answering(503) as port:
        done = probe(PORT=port)
    assert done.returncode == 1
    assert done.stderr == f"cronspace probe: /live on port {port} answered 503\n"
