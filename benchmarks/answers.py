"""Hold the conversations of ``answers.yaml`` with a service, and report what customers are told.

``make eval ONLY=answers`` shows how many pass; ``make try-model MODEL=provider:name`` writes a report too.
Both start a service of their own (embedded database, development CRM) with the model of the settings.
"""

import argparse
import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks import gguf
from benchmarks.conversations import Result, hold_conversations, load_scripts
from core.errors import StartupError
from core.logging import configure_logging
from core.memory import Memory
from core.settings import LogSettings, ServerSettings, Settings
from memory.embedded import EmbeddedMemory
from service.cli.serve import open_server

REPORTS: Final = Path(__file__).resolve().parents[1] / ".data" / "reports"
# The model on this machine, as MODEL; see benchmarks/gguf.py.
LOCAL: Final = "gguf"
# The least share of conversations that must pass.
WANTED: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an evaluation measured.

    Attributes:
        model: The service's chat model.
        results: One for each conversation.
        calls: Attempts at model calls.
        input_tokens: As the provider counts them.
        output_tokens: As the provider counts them.
        seconds: How long all of it took.
    """

    model: str
    results: Sequence[Result]
    calls: int
    input_tokens: int
    output_tokens: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Return whether enough conversations passed, and nothing was said that must never be said."""
        passed = sum(result.has_passed for result in self.results)
        return passed >= WANTED * len(self.results) and not any(
            result.findings.violations for result in self.results
        )

    def list_parts(self) -> list[tuple[str, list[Result]]]:
        """Return all results, and those that were at hand while tuning apart from the others."""
        held_out = [result for result in self.results if result.script.held_out]
        at_hand = [result for result in self.results if not result.script.held_out]
        return [("at hand", at_hand), ("held out", held_out), ("all", list(self.results))]

    def percentile(self, share: float) -> float:
        """Return the seconds within which a share of the messages was answered."""
        seconds = [each for result in self.results for each in result.seconds]
        return float(np.percentile(seconds, 100 * share))


async def evaluate(console: Console) -> None:
    """Show how many conversations passed, and what failed in those that are not held out."""
    configure_logging(LogSettings(level="error"))
    show(await measure(), console)


async def measure(
    *, url: str | None = None, only: Sequence[str] = (), file: Path | None = None, at_once: int = 4
) -> Report:
    """Hold the conversations.

    Args:
        url: A running service with the development CRM. ``None``: start one.
        only: Ids of conversations, or patterns such as ``order-*``; empty: all.
        file: Another file of conversations.
        at_once: How many are held at once.

    Raises:
        StartupError: The service cannot start, e.g. because the model's key is not set.
    """
    scripts = load_scripts(*([file] if file else []))
    if only:
        scripts = [each for each in scripts if any(fnmatch(each.id, name) for name in only)]
    settings = Settings.load()
    async with _service(settings, url) as base:
        before, began = await _read_usage(base), time.perf_counter()
        results = await hold_conversations(base, settings.crm.api_key.get_secret_value(), scripts, at_once)
        seconds, after = time.perf_counter() - began, await _read_usage(base)
        async with httpx.AsyncClient(base_url=base) as http:
            model = (await http.get("/info")).raise_for_status().json()["model"]["model"]
    used = {name: int(after[name] - before[name]) for name in after}
    return Report(model=model, results=results, seconds=seconds, **used)


def show(report: Report, console: Console) -> None:
    """Print the shares, and every failure of conversations that are not held out."""
    for result in report.results:
        for line in result.findings.violations:
            console.print(f"NEVER {result.script.id}: {line}", markup=False, highlight=False, soft_wrap=True)
        if not result.script.held_out:
            for line in result.findings.failures:
                console.print(
                    f"fail  {result.script.id}: {line}", markup=False, highlight=False, soft_wrap=True
                )
    table = Table("conversations", "passed", "of", "%", "said what must never be said", title=report.model)
    for name, results in report.list_parts():
        passed = sum(result.has_passed for result in results)
        violated = sum(bool(result.findings.violations) for result in results)
        share = f"{passed / len(results):.1%}" if results else ""
        table.add_row(name, str(passed), str(len(results)), share, str(violated))
    console.print(table)
    console.print(_describe_cost(report))


def write_report(report: Report, path: Path) -> None:
    """Write the report as Markdown: the shares, what it took, and each conversation."""
    lines = [
        f"# Answers of {report.model}",
        "",
        f"{datetime.now(UTC):%d %B %Y}. {_describe_cost(report)}",
        "",
    ]
    lines += ["| conversations | passed | of | said what must never be said |", "|---|--:|--:|--:|"]
    for name, results in report.list_parts():
        passed = sum(result.has_passed for result in results)
        violated = sum(bool(result.findings.violations) for result in results)
        lines.append(f"| {name} | {passed} | {len(results)} | {violated} |")
    lines += ["", "| conversation | held out | result | seconds a message |", "|---|---|---|---|"]
    for result in report.results:
        outcome = "NEVER" if result.findings.violations else "passed" if result.has_passed else "failed"
        seconds = ", ".join(f"{each:.1f}" for each in result.seconds)
        lines.append(
            f"| {result.script.id} | {'yes' if result.script.held_out else ''} | {outcome} | {seconds} |"
        )
    for title, field in (("Said what must never be said", "violations"), ("Failed", "failures")):
        found = [(each.script.id, line) for each in report.results for line in getattr(each.findings, field)]
        lines += ["", f"## {title}", "", *(f"- `{name}` {line}" for name, line in found or [("", "nothing")])]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _describe_cost(report: Report) -> str:
    messages = sum(len(result.seconds) for result in report.results)
    return (
        f"{messages} messages in {report.seconds:.0f} s: p50 {report.percentile(0.5):.1f} s, "
        f"p95 {report.percentile(0.95):.1f} s a message; {report.calls} model calls, "
        f"{report.input_tokens:,} tokens in, {report.output_tokens:,} out."
    )


async def _read_usage(url: str) -> Mapping[str, float]:
    """Return the service's counters of model calls and tokens."""
    usage = {"calls": 0.0, "input_tokens": 0.0, "output_tokens": 0.0}
    async with httpx.AsyncClient(base_url=url) as http:
        text = (await http.get("/metrics")).raise_for_status().text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith("model_calls_total"):
                usage["calls"] += sample.value
            elif sample.name.endswith("model_tokens_total"):
                usage[f"{sample.labels['direction']}_tokens"] += sample.value
    return usage


@asynccontextmanager
async def _service(settings: Settings, url: str | None) -> AsyncIterator[str]:
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="ventros-answers-") as folder:
        server = ServerSettings(port=0, data_dir=Path(folder))
        async with open_server(replace(settings, server=server)) as up:
            await up.service.warming
            await _wait_for_articles(up.service.memory)
            yield up.url


async def _wait_for_articles(memory: Memory) -> None:
    """Wait until the help articles have vectors: at first a new service finds words alone."""
    while isinstance(memory, EmbeddedMemory):
        progress = await memory.progress()
        if progress.units and not progress.waiting:
            return
        await asyncio.sleep(0.5)


async def try_model() -> int:
    """Evaluate, show and write the report.

    Returns:
        The exit code: 0 when at least nine of ten passed and nothing forbidden was said.
    """
    parser = argparse.ArgumentParser(prog="make try-model", description=__doc__)
    parser.add_argument("--url", help="a running service with the development CRM; its MODEL is tried")
    parser.add_argument("--only", action="append", default=[], help="id or pattern, such as `order-*`")
    parser.add_argument("--file", type=Path, help="other conversations than those of answers.yaml")
    parser.add_argument("--report", type=Path, help=f"where to write; default: a new file in {REPORTS.name}")
    parser.add_argument("--at-once", type=int, default=4, help="conversations at once")
    given = parser.parse_args()
    configure_logging(LogSettings(level="error"))
    async with contextlib.AsyncExitStack() as stack:
        if os.environ.get("MODEL") == LOCAL:
            os.environ.update(await stack.enter_async_context(gguf.open_local_model()))
        report = await measure(url=given.url, only=given.only, file=given.file, at_once=given.at_once)
    show(report, Console())
    name = re.sub(r"[^\w.-]+", "-", report.model)
    path = given.report or REPORTS / f"answers-{name}-{datetime.now(UTC):%Y%m%d-%H%M}.md"
    write_report(report, path)
    print(f"The report is in {path}")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(try_model()))
    except (StartupError, RuntimeError) as error:
        sys.exit(f"error: {error}")
