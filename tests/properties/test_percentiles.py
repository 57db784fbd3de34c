"""Percentiles read from histograms."""

from itertools import pairwise
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from service.observability.agent_status import estimate_quantile, read_buckets
from service.observability.metrics import SECONDS
from tests.support.profiles import examples

BOUNDS = (0.0, *SECONDS, inf)


@settings(max_examples=examples(40))
@given(
    st.lists(st.floats(0, 400), min_size=1, max_size=50),
    st.sampled_from([0.5, 0.95, 0.99, 1.0]),
)
def test_a_percentile_is_in_the_bucket_of_the_true_one(observed: list[float], share: float) -> None:
    histogram = Histogram("h", "", ["graph"], buckets=SECONDS, registry=CollectorRegistry())
    for each in observed:
        histogram.labels("g").observe(each)
    histogram.labels("other").observe(1_000)
    estimate = estimate_quantile(share, read_buckets(histogram, graph="g"))
    assert estimate is not None
    rank = next(index for index in range(1, len(observed) + 1) if index >= share * len(observed))
    true = sorted(observed)[rank - 1]
    low, high = next((low, high) for low, high in pairwise(BOUNDS) if true <= high)
    assert low <= estimate <= high


def test_without_an_observation_there_is_no_percentile() -> None:
    histogram = Histogram("h", "", ["graph"], buckets=SECONDS, registry=CollectorRegistry())
    assert estimate_quantile(0.5, read_buckets(histogram, graph="g")) is None
    histogram.labels("g")
    assert estimate_quantile(0.5, read_buckets(histogram, graph="g")) is None
