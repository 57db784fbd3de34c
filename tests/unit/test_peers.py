"""The numbers of several processes in one answer."""

import asyncio
from pathlib import Path

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.observability.metrics import ServiceMetrics
from service.observability.peers import Peers, merge_metrics, write_metrics


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_process_keeps_its_numbers_and_a_silent_one_is_shown_as_down() -> None:
    first, second = ServiceMetrics(), ServiceMetrics()
    for metrics, count in ((first, 2), (second, 3)):
        for _ in range(count):
            metrics.count_run("react", "finished")
        metrics.run_seconds.labels("react").observe(0.25)
    merged = merge_metrics(first.registry, 1, {2: write_metrics(second.registry), 3: ""})
    series = read(generate_latest(merged).decode())
    runs = {"graph": "react", "outcome": "finished"}
    assert series["ventros_runs_total", frozenset({**runs, "process": "1"}.items())] == 2
    assert series["ventros_runs_total", frozenset({**runs, "process": "2"}.items())] == 3
    up = {number: series["ventros_process_up", frozenset({("process", number)})] for number in "123"}
    assert up == {"1": 1, "2": 1, "3": 0}
    # Nothing else is added or lost: each process's own series, with its label.
    for number, metrics in (("1", first), ("2", second)):
        own = read(generate_latest(metrics.registry).decode())
        shown = {(name, labels | {("process", number)}) for name, labels in own}
        assert shown <= series.keys()


async def test_a_process_answers_the_others_and_one_that_is_gone_answers_nothing(tmp_path: Path) -> None:
    first, second = (Peers(number=number, count=3, folder=tmp_path) for number in (1, 2))

    async def tell() -> str:
        return "healthy"

    async with second.answer({"health": tell}):
        assert await first.ask("health") == {2: "healthy", 3: ""}
        assert await first.ask("metrics") == {2: "", 3: ""}
    assert await asyncio.wait_for(first.ask("health"), 10) == {2: "", 3: ""}
