"""What /metrics answers, as tests read it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def at(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"cronspace_{name}", frozenset(labels.items())))
