"""What the instruments say, read back: totals and percentiles of one graph or agent."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import TypeAlias

from prometheus_client import Counter, Gauge, Histogram

# Upper bound in seconds, and how many observations were at most that.
Buckets: TypeAlias = Sequence[tuple[float, float]]


def value(metric: Gauge, **labels: str) -> float:
    """The value of one series; 0 where there is none."""
    return next((each for found, each in _samples(metric, "") if found == labels), 0.0)


def outcomes(metric: Counter, **labels: str) -> Mapping[str, float]:
    """By the label ``outcome``, the counts of the series with these labels."""
    counted = _samples(metric, "_total")
    return {found["outcome"]: count for found, count in counted if labels.items() <= found.items()}


def buckets(metric: Histogram, **labels: str) -> Buckets:
    """The buckets of one series, lowest first; none where there is no such series."""
    return sorted(
        (float(found["le"]), count)
        for found, count in _samples(metric, "_bucket")
        if labels.items() <= found.items()
    )


def quantile(share: float, of: Buckets) -> float | None:
    """The value a share of the observations is below, as PromQL's ``histogram_quantile`` estimates it.

    Args:
        share: Above 0, at most 1.
        of: The buckets; the last one's bound is infinity.

    Returns:
        Linear within its bucket, the highest finite bound beyond that; None without an observation.
    """
    total = of[-1][1] if of else 0
    if not total:
        return None
    rank = share * total
    for (low, below), (high, within) in pairwise([(0.0, 0.0), *of]):
        if within >= rank:
            return low if high == inf else low + (high - low) * (rank - below) / (within - below)
    return None


def _samples(metric: Counter | Gauge | Histogram, suffix: str) -> Sequence[tuple[Mapping[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in metric.collect()
        for sample in family.samples
        if sample.name == f"{family.name}{suffix}"
    ]
