"""The figures of one process: plain numbers, which prometheus-client writes out when somebody asks.

The client's own counters take a lock each time; these are written by the event loop alone, and cost a tenth
of that in the middle of a burst.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from app import __version__
from app.telemetry.metrics import BUILD_INFO, OF_PROCESS, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class _Observed:
    """A histogram: how many values lie in each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def family(self, metric: Metric) -> HistogramMetricFamily:
        names = [*(repr(bound) for bound in self.bounds), "+Inf"]
        buckets = list(zip(names, accumulate(self.counts), strict=True))
        return HistogramMetricFamily(metric.name, metric.help, buckets=buckets, sum_value=self.sum)


class Figures(Collector):
    """The values of some metrics. What has no labels is there from the start, with 0."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)
        self._numbers: dict[str, dict[tuple[str, ...], float]] = {}
        self._observed: dict[str, _Observed] = {}
        for metric in self._metrics:
            if metric.kind == "histogram":
                self._observed[metric.name] = _Observed(metric.buckets)
            else:
                self._numbers[metric.name] = {} if metric.labels else {(): 0}

    def add(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Count something."""
        numbers = self._numbers[metric.name]
        numbers[labels] = numbers.get(labels, 0) + by

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Say how much there is of something."""
        self._numbers[metric.name][labels] = value

    def observe(self, metric: Metric, value: float) -> None:
        """Put a value into a histogram."""
        observed = self._observed[metric.name]
        observed.counts[bisect_left(observed.bounds, value)] += 1
        observed.sum += value

    def value(self, metric: Metric, *labels: str) -> float:
        """A counter or gauge as it is; of a histogram, how many values it has."""
        if metric.kind == "histogram":
            return sum(self._observed[metric.name].counts)
        return self._numbers[metric.name].get(labels, 0)

    def collect(self) -> Iterator[Family]:
        """The figures as prometheus-client takes them."""
        for metric in self._metrics:
            if metric.kind == "histogram":
                yield self._observed[metric.name].family(metric)
                continue
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in self._numbers[metric.name].items():
                family.add_metric(labels, value)
            yield family


def of_process(metrics: Iterable[Metric] = ()) -> Figures:
    """The figures of this process: what every one has, and some more."""
    figures = Figures((*OF_PROCESS, *metrics))
    figures.set(BUILD_INFO, 1, __version__, platform.python_version())
    return figures


def write_out(*parts: Figures) -> bytes:
    """Figures in Prometheus's text format, with those of the operating system about this process."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    for part in parts:
        registry.register(part)
    return generate_latest(registry)
