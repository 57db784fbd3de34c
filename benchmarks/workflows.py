"""Workflows at scale: thousands of light steps in one, a thousand small ones at once, and the cost of a step.

``make bench-workflows`` runs it on an embedded Postgres of its own, durable as the service's
(``durability="sync"``, ``fsync`` on). A light step is ``data_processing`` adding two numbers, so that what is
measured is the engine and the keeping. "In memory" is the same compiled graph on LangGraph's
``InMemorySaver``, which serialises as Postgres' saver does and writes nowhere.
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
    """One measured run: wall and CPU seconds of this process, and how many steps."""

    seconds: float
    cpu: float
    steps: int

    @property
    def per_step(self) -> float:
        """Wall milliseconds a step."""
        return self.seconds * 1_000 / self.steps


def light(step_id: str, *numbers: str) -> dict[str, Any]:
    """A step that adds."""
    source = f"[{', '.join(numbers)}]"
    return {"type": "data_processing", "id": step_id, "operation": "sum", "source": source}


def fan_out() -> Definition:
    """One step for each of a list's items, beside each other."""
    each = {"type": "fan_out_fan_in", "id": "each", "for_each": "input.items", "max_items": MANY}
    return _definition({**each, "fan_out_steps": [light("add", "item", "index")]})


def loop(iterations: int) -> Definition:
    """One step, again and again."""
    again = {"type": "loop", "id": "again", "max_iterations": iterations}
    return _definition({**again, "steps": [light("add", "iteration", "`1`")]})


def small() -> Definition:
    """Five steps: two in sequence, then three beside each other."""
    beside = [light(f"third_{name}", "steps.second.output", "`1`") for name in ("a", "b", "c")]
    first, second = light("first", "`1`"), light("second", "steps.first.output", "`1`")
    return _definition(first, second, {"type": "parallel", "id": "beside", "steps": beside})


def _definition(*steps: dict[str, Any]) -> Definition:
    inputs: Any = {"items": {"type": "array", "required": False, "default": []}}
    return read_definition({"name": "bench", "inputs": inputs, "steps": list(steps)})


async def run(definition: Definition, saver: Checkpointer, steps: int, *, items: int = 0) -> Run:
    """Run a workflow and see that every result is kept.

    Raises:
        RuntimeError: One is not.
    """
    graph = compile_workflow(definition, _engine(), saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    started, cpu = perf_counter(), process_time()
    output = await graph.ainvoke({"input": {"items": list(range(items))}}, config, durability="sync")
    measured = Run(perf_counter() - started, process_time() - cpu, steps)
    results = (await graph.aget_state(config)).values["results"]
    done = sum(key.startswith("add[") and one["status"] == "succeeded" for key, one in results.items())
    if output["status"] != "succeeded" or done != steps:
        raise RuntimeError(f"{done} of {steps} results were kept, and the run {output['status']}")
    return measured


async def many_small(url: str) -> tuple[Run, int]:
    """A thousand small workflows sent to the service at once over HTTP; how many did not succeed."""
    settings = Settings.load(
        database=DatabaseSettings(url=SecretStr(url)), server=ServerSettings(port=0), log=LOGS
    )
    body = {"definition": small().model_dump(mode="json", exclude_unset=True), "input": {}}
    async with open_server(settings) as up, httpx.AsyncClient(base_url=up.url, timeout=120) as http:
        started, cpu = perf_counter(), process_time()
        asked = await asyncio.gather(*(http.post("/v1/workflows", json=body) for _ in range(SMALL)))
        ended = [await _ended(http, one.json()["id"]) for one in asked]
        measured = Run(perf_counter() - started, process_time() - cpu, SMALL * 5)
    expected = {"third_a": 3, "third_b": 3, "third_c": 3}
    return measured, sum((one["status"], one["result"]) != ("succeeded", expected) for one in ended)


async def _ended(http: httpx.AsyncClient, workflow_id: str) -> dict[str, Any]:
    while True:
        report: dict[str, Any] = (await http.get(f"/v1/workflows/{workflow_id}")).json()
        if report["ended_at"]:
            return report
        await asyncio.sleep(1)


def _engine() -> Engine:
    return Engine(executors={"data_processing": process_data}, slots=FairSemaphore(100))


async def measure(saver: Checkpointer, url: str, console: Console, rounds: int) -> bool:
    """Everything, printed; whether all of it is as promised."""
    # A first run compiles regular expressions and opens connections.
    await run(fan_out(), saver, 100, items=100)
    ours = [await run(fan_out(), saver, MANY, items=MANY) for _ in range(rounds)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1_024)
    memory = [await run(fan_out(), InMemorySaver(), MANY, items=MANY) for _ in range(rounds)]
    ratio = median(one.seconds for one in ours) / median(one.seconds for one in memory)
    cpu_ratio = median(one.cpu for one in ours) / median(one.cpu for one in memory)
    several, failed = await many_small(url)
    fans = [await _least(fan_out(), saver, size, items=size) for size in SIZES]
    loops = [await _least(loop(size), saver, size) for size in LOOP_SIZES]

    table = Table("what", "wall, s", "CPU, s", "ms a step", "", title=f"{MANY} light steps in one workflow")
    for name, found in (("Postgres", ours), ("in memory", memory)):
        for one in found:
            table.add_row(name, f"{one.seconds:.2f}", f"{one.cpu:.2f}", f"{one.per_step:.3f}")
    table.add_row("Postgres / in memory", f"{ratio:.2f}", f"{cpu_ratio:.2f}", "", f"promised: {MOST_RATIO}")
    table.add_row("peak memory", "", "", "", f"{peak:.0f} MB, promised: {MOST_MB}")
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
    console.print(f"{PLOT} is written")
    return ratio <= MOST_RATIO and peak <= MOST_MB and not failed


async def _least(definition: Definition, saver: Checkpointer, steps: int, *, items: int = 0) -> Run:
    """The least of three: what else the machine does only ever adds."""
    runs = [await run(definition, saver, steps, items=items) for _ in range(3)]
    return min(runs, key=lambda one: one.seconds)


def plot(series: dict[str, Sequence[Run]]) -> str:
    """CPU milliseconds a step over the number of steps, as an SVG; the number on a logarithmic scale."""
    width, height, left, top = 640, 320, 60, 30
    highest = max(one.cpu * 1_000 / one.steps for runs in series.values() for one in runs) * 1.2

    def place(one: Run) -> tuple[float, float]:
        share = (log10(one.steps) - 2) / 2
        return left + share * (width - left - 90), height - top - one.cpu * 1_000 / one.steps / highest * 240

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18">CPU milliseconds a step, by the steps of the workflow</text>',
        f'<path d="M{left} {top}V{height - top}H{width - 20}" fill="none" stroke="#71717a"/>',
    ]
    for (name, runs), colour in zip(series.items(), ("#2563eb", "#d97706"), strict=True):
        points = [place(one) for one in runs]
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
    """Measure; 1 where something is not as promised."""
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
