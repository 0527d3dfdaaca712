"""Whether this process traces; OpenTelemetry is imported only where it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.config import Settings
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.telemetry.tracing import Traces


def open_traces(settings: Settings, service: str) -> Traces | None:
    """None where traces are off. Raises :class:`ConfigError` where OpenTelemetry is not installed."""
    if not settings.traces:
        return None
    try:
        from app.telemetry.tracing import to_otlp

        return to_otlp(service)
    except ImportError as error:
        raise ConfigError("CRONSPACE_TRACES needs OpenTelemetry: pip install 'cronspace[otel]'") from error
