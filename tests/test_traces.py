"""OpenTelemetry: spans from the replace to the store, and from the slot to the target."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import pytest
from calls import ACME
from conftest import ShardFactory, eventually
from helpers import Target, define
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.config import load_settings
from app.main import create_app
from app.store import Shard, Shards, triggers
from app.telemetry.traces import open_traces
from app.telemetry.tracing import Traces, ids_of
from workers.transport import Transport
from workers.worker import Worker

pytestmark = pytest.mark.anyio

SET = {"triggers": [{"id": "one", "cron": "0 0 1 1 *", "url": "http://127.0.0.1:9/", "method": "GET"}]}
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def in_memory() -> tuple[Traces, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return Traces("test", SimpleSpanProcessor(exporter)), exporter


def by_name(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [one for one in exporter.get_finished_spans() if one.name == name]


def of(span: ReadableSpan) -> Any:
    return span.get_span_context()


async def run_until(shard: Shard, traces: Traces | None, condition: Any) -> None:
    settings = shard.settings
    transport = Transport(settings.snippet_bytes, settings.max_response_bytes, settings.max_jobs)
    worker = Worker(shard, transport, traces=traces)
    running = asyncio.create_task(worker.main())
    try:
        await eventually(condition)
    finally:
        worker.stop()
        await running
        await worker.close()


async def test_a_replace_is_a_span_of_its_callers_trace_with_its_scripts_below(shard: Shard) -> None:
    traces, exporter = in_memory()
    app = create_app(shard.settings, Shards([shard]), traces)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answer = await client.put(f"{ACME}/triggers", json=SET, headers={"traceparent": CALLER})
        assert answer.is_success
    (call,) = by_name(exporter, "put_triggers")
    assert f"{of(call).trace_id:032x}" == CALLER.split("-")[1]
    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == CALLER.split("-")[2]
    assert call.attributes is not None
    assert call.attributes["cronspace.workspace"] == "acme"
    (swap,) = by_name(exporter, "redis swap_triggers")
    assert swap.parent is not None
    assert swap.parent.span_id == of(call).span_id


async def test_slot_claim_and_attempts_are_one_trace_that_goes_on_at_the_target(
    make_shard: ShardFactory,
) -> None:
    traces, exporter = in_memory()
    shard = make_shard(real_time=True)
    busy = b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"
    async with Target(busy).running() as target:
        fields = {"max_retries": 1, "retry_strategy": "fixed", "retry_delay_seconds": 0.1}
        definition = define("* * * * * *", url=target.url, max_runs=1, **fields)
        await triggers.replace(shard, "acme", [("one", definition)])
        await run_until(make_shard(real_time=True), traces, lambda: len(by_name(exporter, "attempt")) == 2)
        first, second = target.received
    execution = first.headers["webhook-id"]
    trace_id, root = ids_of(execution)
    (slot,), (claim,) = by_name(exporter, "slot"), by_name(exporter, "claim")
    attempts = by_name(exporter, "attempt")
    assert {of(one).trace_id for one in exporter.get_finished_spans()} == {trace_id}
    assert (of(slot).span_id, slot.parent) == (root, None)
    assert slot.start_time == int(execution.rsplit(":", 1)[1]) * 1_000_000
    for one in (claim, *attempts):
        assert one.parent is not None
        assert one.parent.span_id == root
    for request, span in zip((first, second), attempts, strict=True):
        assert request.headers["traceparent"] == f"00-{trace_id:032x}-{of(span).span_id:016x}-01"
        assert span.attributes is not None
        assert (span.attributes["http.response.status_code"], span.attributes["error.type"]) == (
            503,
            "status",
        )
        assert not span.status.is_ok


async def test_a_traceparent_of_the_triggers_own_is_left_as_it_is(make_shard: ShardFactory) -> None:
    traces, exporter = in_memory()
    shard = make_shard(real_time=True)
    async with Target().running() as target:
        definition = define("* * * * * *", url=target.url, max_runs=1, headers={"TraceParent": CALLER})
        await triggers.replace(shard, "acme", [("one", definition)])
        await run_until(make_shard(real_time=True), traces, lambda: by_name(exporter, "attempt"))
        (request,) = target.received
    assert [value for name, value in request.raw_headers if name.lower() == "traceparent"] == [CALLER]


async def test_off_nothing_is_sent(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target:
        await triggers.replace(shard, "acme", [("one", define("* * * * * *", url=target.url))])
        await run_until(make_shard(real_time=True), None, lambda: target.received)
        assert "traceparent" not in target.received[0].headers
    assert open_traces(load_settings({}), "test") is None


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    program = "import sys, app.main, workers.main; assert not any('opentelemetry' in m for m in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 0


def test_switched_on_it_exports_by_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    traces = open_traces(load_settings({"CRONSPACE_TRACES": "1"}), "test")
    assert traces is not None
    traces.close()
