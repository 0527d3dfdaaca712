"""Durations and latenesses of many executions, in a form that is small and can be merged.

Two histograms whose buckets grow by a tenth, so a percentile is off by five per cent at most; number, sum,
least and most are exact. ``store/lua/_count.lua`` writes the packed form.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

_HEAD = struct.Struct(">IdIIdI")
_BUCKET = struct.Struct(">BI")
_GROWTH = 1.1


class Timings(Struct, frozen=True, kw_only=True):
    """Of a number of executions, in ms: exact sums and extremes, and counts by bucket."""

    number: int = 0
    duration_sum: float = 0.0
    duration_least: int = 0
    duration_most: int = 0
    lateness_sum: float = 0.0
    lateness_most: int = 0
    durations: dict[int, int] = {}  # bucket → count
    latenesses: dict[int, int] = {}


class Spread(Struct, frozen=True, kw_only=True):
    """A summary of times in ms; None where there were none."""

    avg: float | None
    min: int | None
    max: int | None
    p50: float | None
    p95: float | None
    p99: float | None


def unpack_timings(packed: bytes) -> Timings:
    """The reverse of what the scripts pack."""
    number, total, least, most, late_total, late_most = _HEAD.unpack_from(packed)
    split = _HEAD.size + 1 + packed[_HEAD.size] * _BUCKET.size
    return Timings(
        number=number,
        duration_sum=total,
        duration_least=least,
        duration_most=most,
        lateness_sum=late_total,
        lateness_most=late_most,
        durations=dict(_BUCKET.iter_unpack(packed[_HEAD.size + 1 : split])),
        latenesses=dict(_BUCKET.iter_unpack(packed[split:])),
    )


def timings_of(pairs: Iterable[tuple[int, int]]) -> Timings:
    """Of executions one by one: duration and lateness of each, ms."""
    both = list(pairs)
    durations, latenesses = [one for one, _ in both], [late for _, late in both]
    return Timings(
        number=len(both),
        duration_sum=float(sum(durations)),
        duration_least=min(durations, default=0),
        duration_most=max(durations, default=0),
        lateness_sum=float(sum(latenesses)),
        lateness_most=max(latenesses, default=0),
        durations=dict(Counter(map(_bucket, durations))),
        latenesses=dict(Counter(map(_bucket, latenesses))),
    )


def merge(parts: Iterable[Timings]) -> Timings:
    """Several as one."""
    all_parts = [part for part in parts if part.number]
    durations: Counter[int] = Counter()
    latenesses: Counter[int] = Counter()
    for part in all_parts:
        durations.update(part.durations)
        latenesses.update(part.latenesses)
    return Timings(
        number=sum(part.number for part in all_parts),
        duration_sum=sum(part.duration_sum for part in all_parts),
        duration_least=min((part.duration_least for part in all_parts), default=0),
        duration_most=max((part.duration_most for part in all_parts), default=0),
        lateness_sum=sum(part.lateness_sum for part in all_parts),
        lateness_most=max((part.lateness_most for part in all_parts), default=0),
        durations=dict(durations),
        latenesses=dict(latenesses),
    )


def duration_spread(timings: Timings) -> Spread:
    """Of the durations: first attempt to last answer."""
    least, most = timings.duration_least, timings.duration_most
    return _spread(timings.number, timings.duration_sum, least, most, timings.durations)


def lateness_spread(timings: Timings) -> Spread:
    """Of the latenesses: slot to first attempt. What a person started has none."""
    buckets = timings.latenesses
    least = round(_middle(min(buckets))) if buckets else 0
    return _spread(sum(buckets.values()), timings.lateness_sum, least, timings.lateness_most, buckets)


def _spread(number: int, total: float, least: int, most: int, buckets: dict[int, int]) -> Spread:
    if not number:
        return Spread(avg=None, min=None, max=None, p50=None, p95=None, p99=None)

    def percentile(share: float) -> float:
        wanted, seen = share * number, 0
        for bucket in sorted(buckets):
            seen += buckets[bucket]
            if seen >= wanted:
                return round(min(max(_middle(bucket), least), most), 1)
        return float(most)

    return Spread(
        avg=round(total / number, 1),
        min=least,
        max=most,
        p50=percentile(0.5),
        p95=percentile(0.95),
        p99=percentile(0.99),
    )


def _bucket(ms: int) -> int:
    return 0 if ms < 1 else min(255, 1 + math.floor(math.log(ms) / math.log(_GROWTH)))


def _middle(bucket: int) -> float:
    """The geometric middle of a bucket: n holds 1.1^(n-1) up to 1.1^n ms, 0 what is below 1 ms."""
    return 0.0 if bucket == 0 else float(_GROWTH ** (bucket - 0.5))
