"""Measure workflows: thousands of light steps in one, a thousand small ones at once, and the cost per step.

``make bench-workflows`` runs it on an embedded Postgres of its own that is as durable as the service's
(``durability="sync"``, ``fsync`` on). A light step is ``data_processing`` that adds two numbers, so that the
engine and the checkpoints are what is measured. "In memory" is the same compiled graph on LangGraph's
``InMemorySaver``, which serialises like the Postgres saver and writes nothing.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any
from uuid import uuid4

import httpx
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Checkpointer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from checkpoints.saver import open_saver
from core.concurrency import FairSemaphore
from core.logging import configure_logging
from core.settings import DatabaseSettings, LogSettings, ServerSettings, Settings
from graphs.workflow import compile_workflow
from nodes.workflow.data_processing import process_data
from service.cli.serve import open_server
from workflows.ports import Engine
from workflows.schema import Definition
from workflows.validation import read_definition

PLOT = Path(__file__).parent / "workflows.svg"
SIZES = (100, 300, 1_000, 3_000, 10_000)
LOOP_SIZES = (100, 300, 1_000, 3_000)
MANY = 10_000
SMALL = 1_000
MOST_MB = 600
MOST_RATIO = 1.5
LOGS = LogSettings(level="warning")


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run: wall and CPU seconds of this process, and the number of steps."""

    seconds: float
    cpu: float
    steps: int

    @property
    def per_step(self) -> float:
        """Wall milliseconds per step."""
        return self.seconds * 1_000 / self.steps


def light(step_id: str, *numbers: str) -> dict[str, Any]:
    """Return a step that adds numbers."""
    source = f"[{', '.join(numbers)}]"
    return {"type": "data_processing", "id": step_id, "operation": "sum", "source": source}


def fan_out() -> Definition:
    """Return a workflow that runs one step for each item of a list in parallel."""
    each = {"type": "fan_out_fan_in", "id": "each", "for_each": "input.items", "max_items": MANY}
    return _definition({**each, "fan_out_steps": [light("add", "item", "index")]})


def loop(iterations: int) -> Definition:
    """Return a workflow that repeats one step."""
    again = {"type": "loop", "id": "again", "max_iterations": iterations}
    return _definition({**again, "steps": [light("add", "iteration", "`1`")]})


def small() -> Definition:
    """Return a workflow of five steps: two in sequence, then three in parallel."""
    parallel = [light(f"third_{name}", "steps.second.output", "`1`") for name in ("a", "b", "c")]
    first, second = light("first", "`1`"), light("second", "steps.first.output", "`1`")
    return _definition(first, second, {"type": "parallel", "id": "beside", "steps": parallel})


def _definition(*steps: dict[str, Any]) -> Definition:
    inputs: Any = {"items": {"type": "array", "required": False, "default": []}}
    return read_definition({"name": "bench", "inputs": inputs, "steps": list(steps)})


async def run(definition: Definition, saver: Checkpointer, steps: int, *, items: int = 0) -> Run:
    """Run a workflow and check that every result is stored.

    Raises:
        RuntimeError: A result is missing.
    """
    graph = compile_workflow(definition, _engine(), saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    started, cpu = perf_counter(), process_time()
    output = await graph.ainvoke({"input": {"items": list(range(items))}}, config, durability="sync")
    measured = Run(perf_counter() - started, process_time() - cpu, steps)
    results = (await graph.aget_state(config)).values["results"]
    done = sum(key.startswith("add[") and one["status"] == "succeeded" for key, one in results.items())
    if output["status"] != "succeeded" or done != steps:
        raise RuntimeError(f"{done} of {steps} results were stored, and the run {output['status']}")
    return measured


async def many_small(url: str) -> tuple[Run, int]:
    """Send a thousand small workflows to the service at once; return the run and how many failed."""
    settings = Settings.load(
        database=DatabaseSettings(url=SecretStr(url)), server=ServerSettings(port=0), log=LOGS
    )
    body = {"definition": small().model_dump(mode="json", exclude_unset=True), "input": {}}
    async with open_server(settings) as up, httpx.AsyncClient(base_url=up.url, timeout=120) as http:
        started, cpu = perf_counter(), process_time()
        responses = await asyncio.gather(*(http.post("/v1/workflows", json=body) for _ in range(SMALL)))
        reports = [await _wait_for_end(http, one.json()["id"]) for one in responses]
        measured = Run(perf_counter() - started, process_time() - cpu, SMALL * 5)
    expected = {"third_a": 3, "third_b": 3, "third_c": 3}
    return measured, sum((one["status"], one["result"]) != ("succeeded", expected) for one in reports)


async def _wait_for_end(http: httpx.AsyncClient, workflow_id: str) -> dict[str, Any]:
    while True:
        report: dict[str, Any] = (await http.get(f"/v1/workflows/{workflow_id}")).json()
        if report["ended_at"]:
            return report
        await asyncio.sleep(1)


def _engine() -> Engine:
    return Engine(executors={"data_processing": process_data}, slots=FairSemaphore(100))


async def measure(saver: Checkpointer, url: str, console: Console, rounds: int) -> bool:
    """Measure and print everything; return whether all targets are met."""
    # The first run warms up: it compiles regular expressions and opens connections.
    await run(fan_out(), saver, 100, items=100)
    postgres = [await run(fan_out(), saver, MANY, items=MANY) for _ in range(rounds)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1_024)
    memory = [await run(fan_out(), InMemorySaver(), MANY, items=MANY) for _ in range(rounds)]
    ratio = median(one.seconds for one in postgres) / median(one.seconds for one in memory)
    cpu_ratio = median(one.cpu for one in postgres) / median(one.cpu for one in memory)
    several, failed = await many_small(url)
    fans = [await _fastest(fan_out(), saver, size, items=size) for size in SIZES]
    loops = [await _fastest(loop(size), saver, size) for size in LOOP_SIZES]

    table = Table("what", "wall, s", "CPU, s", "ms per step", "", title=f"{MANY} light steps in one workflow")
    for name, found in (("Postgres", postgres), ("in memory", memory)):
        for one in found:
            table.add_row(name, f"{one.seconds:.2f}", f"{one.cpu:.2f}", f"{one.per_step:.3f}")
    table.add_row("Postgres / in memory", f"{ratio:.2f}", f"{cpu_ratio:.2f}", "", f"target: {MOST_RATIO}")
    table.add_row("peak memory", "", "", "", f"{peak:.0f} MB, target: {MOST_MB}")
    table.add_row(
        f"{SMALL} small at once",
        f"{several.seconds:.2f}",
        f"{several.cpu:.2f}",
        f"{several.per_step:.3f}",
        f"{failed} failed",
    )
    for name, found in (("fan-out", fans), ("loop", loops)):
        for one in found:
            table.add_row(
                f"{name} of {one.steps}", f"{one.seconds:.2f}", f"{one.cpu:.2f}", f"{one.per_step:.3f}"
            )
    console.print(table)
    PLOT.write_text(plot({"fan-out": fans, "loop": loops}), encoding="utf-8")
    console.print(f"{PLOT} was written")
    return ratio <= MOST_RATIO and peak <= MOST_MB and not failed


async def _fastest(definition: Definition, saver: Checkpointer, steps: int, *, items: int = 0) -> Run:
    """Return the fastest of three runs: other load on the machine only adds time."""
    runs = [await run(definition, saver, steps, items=items) for _ in range(3)]
    return min(runs, key=lambda one: one.seconds)


def plot(series: dict[str, Sequence[Run]]) -> str:
    """Draw CPU milliseconds per step over the number of steps (logarithmic) as an SVG."""
    width, height, left, top = 640, 320, 60, 30
    highest = max(one.cpu * 1_000 / one.steps for runs in series.values() for one in runs) * 1.2

    def locate(one: Run) -> tuple[float, float]:
        share = (log10(one.steps) - 2) / 2
        return left + share * (width - left - 90), height - top - one.cpu * 1_000 / one.steps / highest * 240

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18">CPU milliseconds per step, by the number of steps</text>',
        f'<path d="M{left} {top}V{height - top}H{width - 20}" fill="none" stroke="#71717a"/>',
    ]
    for (name, runs), colour in zip(series.items(), ("#2563eb", "#d97706"), strict=True):
        points = [locate(one) for one in runs]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for one, (x, y) in zip(runs, points, strict=True):
            value = one.cpu * 1_000 / one.steps
            lines.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="{colour}"/>')
            lines.append(f'<text x="{x - 12:.0f}" y="{y - 8:.0f}" fill="{colour}">{value:.2f}</text>')
            lines.append(f'<text x="{x - 12:.0f}" y="{height - 12}">{one.steps}</text>')
        lines.append(
            f'<text x="{points[-1][0] + 24:.0f}" y="{points[-1][1] + 4:.0f}" fill="{colour}">{name}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


async def main(rounds: int) -> int:
    """Measure; return 1 if a target is missed."""
    configure_logging(LOGS)
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="ventros-bench-") as folder:
        async with (
            embedded_postgres_server(Path(folder)) as url,
            open_pool(url, DatabaseSettings()) as pool,
            open_saver(pool) as saver,
        ):
            return 0 if await measure(saver, url, console, rounds) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of the 10,000 steps")
    sys.exit(asyncio.run(main(parser.parse_args().rounds)))
