"""Replacing a whole set through HTTP, every trigger changed: ms per replace, at the client."""

from __future__ import annotations

import http.client
import json
import time
from statistics import median

from bench.due import HEADERS
from bench.lab import Lab
from bench.result import Context, Figure, Row
from lab.processes import LabError

EXPRESSIONS = 50


def run(context: Context) -> Row:
    """A real API process, one client that waits for each answer and reads it whole."""
    count, rounds = (50, 3) if context.small else (1000, 20)
    took = []
    with Lab() as lab:
        port = lab.api(lab.redis().url()).port
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            replace(client, body(count, -1), "created", count)
            for round_ in range(rounds):
                content = body(count, round_)
                began = time.perf_counter()
                answer = replace(client, content, "updated", count)
                took.append((time.perf_counter() - began) * 1000)
        finally:
            client.close()
    figure = Figure(
        name=f"replace of {count}, p50",
        unit="ms",
        ours=median(took),
        better="lower",
        goal=60 if count == 1000 else None,
    )
    sizes = {
        "triggers": count,
        "replaces": rounds,
        "expressions": EXPRESSIONS,
        "body_bytes": len(content),
        "answer_bytes": len(answer),
        "slowest_ms": round(max(took), 3),
    }
    return Row([figure], sizes)


def body(count: int, round_: int) -> bytes:
    """A set whose triggers all differ from the ones of every other round."""
    triggers = [
        {
            "cron": f"{index % EXPRESSIONS} */2 * * *",
            "url": f"https://api.example.com/webhook/{index}",
            "method": "POST",
            "payload": {"event": "scheduled_task", "data": {"round": round_}},
            "headers": HEADERS,
        }
        for index in range(count)
    ]
    return json.dumps({"triggers": triggers}).encode()


def replace(client: http.client.HTTPConnection, content: bytes, change: str, count: int) -> bytes:
    """Send one replace; raises :class:`LabError` unless it made that change to ``count`` triggers."""
    headers = {"content-type": "application/json"}
    client.request("POST", "/api/workspaces/bench/triggers", content, headers)
    response = client.getresponse()
    answer = response.read()
    if response.status >= 300 or json.loads(answer)["changes"][change] != count:
        raise LabError(f"a replace was answered {response.status}: {answer[:500]!r}")
    return answer
