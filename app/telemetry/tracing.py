"""OpenTelemetry traces, where they are wanted: nothing else imports this before.

All of an execution is one trace, whichever workers send its attempts, because the ids of the trace and of its
first span are made of the execution's id: nothing has to be stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app import __version__

_NS = 1_000_000  # in a millisecond


class _Ids(RandomIdGenerator):
    """Random ids, but for a span whose ids are given."""

    given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self.given is None else self.given[0]

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self.given is None else self.given[1]


def ids_of(execution: str) -> tuple[int, int]:
    """The ids of an execution's trace and of its first span."""
    digest = hashlib.sha256(execution.encode()).digest()
    return int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")


class Traced:
    """A span of an attempt."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """The header that makes what follows a part of the trace (W3C Trace Context)."""
        own = self._span.get_span_context()
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"

    def tell(self, status: int, kind: str, message: str) -> None:
        """What became of it: the target's status, and why it failed, if it did."""
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if kind:
            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR, message))


class Traces:
    """What a process traces. Times are ms since the epoch; ``processor`` takes the spans."""

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        self._ids = _Ids()
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("cronspace", __version__)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    @contextmanager
    def call(self, name: str, headers: Mapping[str, str], workspace: str | None) -> Iterator[None]:
        """A call of the API; it goes on with its caller's trace."""
        context = TraceContextTextMapPropagator().extract(headers)
        attributes = {"cronspace.workspace": workspace} if workspace else {}
        with self._tracer.start_as_current_span(name, context, SpanKind.SERVER, attributes):
            yield

    @contextmanager
    def script(self, name: str) -> Iterator[None]:
        """A script that runs for a call; the many of a worker's loops belong to none and are left out."""
        if not trace.get_current_span().is_recording():
            yield
            return
        with self._tracer.start_as_current_span(f"redis {name}", kind=SpanKind.CLIENT):
            yield

    def claimed(self, execution: str, slot: int, begun: int, now: int) -> None:
        """An execution was claimed for its first attempt by a call that began at ``begun``."""
        self._ids.given = ids_of(execution)
        try:
            attributes = {"cronspace.execution": execution}
            waited = self._tracer.start_span("slot", Context(), attributes=attributes, start_time=slot * _NS)
        finally:
            self._ids.given = None
        waited.end(now * _NS)
        self._tracer.start_span("claim", self._within(execution), start_time=begun * _NS).end(now * _NS)

    @contextmanager
    def attempt(self, execution: str, number: int, worker: str) -> Iterator[Traced]:
        """One attempt."""
        attributes: dict[str, str | int] = {
            "cronspace.execution": execution,
            "cronspace.attempt": number,
            "cronspace.worker": worker,
        }
        within = self._within(execution)
        with self._tracer.start_as_current_span("attempt", within, SpanKind.CLIENT, attributes) as span:
            yield Traced(span)

    def _within(self, execution: str) -> Context:
        """The context below an execution's first span, which another process may have made."""
        trace_id, span_id = ids_of(execution)
        decision = self._provider.sampler.should_sample(None, trace_id, "slot").decision
        flags = TraceFlags.SAMPLED if decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT
        first = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
        return trace.set_span_in_context(NonRecordingSpan(first), Context())


def to_otlp(service: str) -> Traces:
    """Traces that go where the OTEL_* variables say, by OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Traces(service, BatchSpanProcessor(OTLPSpanExporter()))
