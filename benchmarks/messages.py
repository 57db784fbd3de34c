"""Measure where the time of one message to ``POST /v1/messages`` goes.

The service runs in this process with its offline model and an embedded Postgres of its own, the clients in
another one. Each message is a new session, is worded like no other, and comes from one of the development
CRM's contacts in turn. ``make bench-messages`` runs it.

CPU is also given as a multiple of a calibration loop's, to compare machines; a busy one makes it vary.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.clients import Answer, ask
from benchmarks.message_counters import Counts, Cpu, calibrate, wait_until_indexed
from core.logging import configure_logging
from core.settings import LogSettings, ServerSettings, Settings
from memory.embedded import EmbeddedMemory
from service.cli.serve import RunningServer, open_server, tune_garbage_collector

PROJECT: Final = Path(__file__).resolve().parent.parent
SEED: Final = PROJECT / "dev_crm" / "seed" / "contacts.json"
AT_ONCE: Final = 20
WARM_UP: Final = 12

MESSAGES: Final = (
    "I get 'Error {n}' when I try to export my contacts. Can you help?",
    "Where is my order {n}? It should have come last week.",
    "You charged me twice for invoice {n}, please give the money back.",
    "A exportação {n} falha com um erro desde ontem.",
    "Can I book a meeting with the team about project {n}?",
    "Quero cancelar minha assinatura {n} no fim do mês.",
    "How do I connect channel {n} to WhatsApp? And what does the Pro plan cost?",
    "Write a short announcement of our discount of {n} euros for regular customers.",
)


@dataclass(frozen=True, slots=True)
class Phase:
    """What a number of messages cost.

    Attributes:
        answers: The clients' answers.
        seconds: Wall time of all.
        counts: The counters' differences.
        trips: Round trips by module.
        cpu: CPU seconds by part, indexing included.
    """

    answers: Sequence[Answer]
    seconds: float
    counts: Counter[str]
    trips: Counter[str]
    cpu: Mapping[str, float]

    @property
    def failed(self) -> int:
        """The number of messages without an answer."""
        return sum(answer.status != 200 or not answer.complete for answer in self.answers)  # noqa: PLR2004

    def per_message(self, total: float) -> float:
        """Return a total divided by the number of messages."""
        return total / len(self.answers)

    def percentile(self, share: float) -> float:
        """Return a percentile of the time to an answer, ms."""
        ordered = sorted(answer.seconds for answer in self.answers)
        return 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def send_messages(address: tuple[str, int], first: int, count: int, at_once: int) -> list[Answer]:
    """Send messages, a limited number at a time, each in a session of its own."""
    contacts = [contact["id"] for contact in json.loads(SEED.read_text())]
    numbers = iter(range(first, first + count))
    answers: list[Answer] = []

    async def client() -> None:
        for number in numbers:
            message = MESSAGES[number % len(MESSAGES)].format(n=10_000 + number)
            body = {
                "message": message,
                "contact_id": contacts[number % len(contacts)],
                "message_id": f"bench-{number}",
            }
            # All clients share one iterator.
            answers.append(await ask(address, "/v1/messages", body, token=b"{", end=b'"metadata"'))

    await asyncio.gather(*(client() for _ in range(at_once)))
    return answers


class Bench:
    """Sends phases of messages to a running service and counts what they cost.

    Args:
        running: The service.
        counts: The counters, installed before the service was opened.
        postmaster: The main process of its Postgres.
    """

    def __init__(self, running: RunningServer, counts: Counts, postmaster: int) -> None:
        self._url = running.url
        self._memory = running.service.memory
        self._counts = counts
        self._cpu = Cpu(postmaster)
        self._sent = 0

    async def measure(self, count: int, at_once: int) -> Phase:
        """Send messages from another process, and wait until they are indexed."""
        totals, trips, cpu = self._counts.totals.copy(), self._counts.trips.copy(), self._cpu.read()
        started = time.perf_counter()
        answers = await self._send(count, at_once)
        seconds = time.perf_counter() - started
        await wait_until_indexed(self._count_waiting)
        spent = {part: used - cpu.get(part, 0) for part, used in self._cpu.read().items()}
        return Phase(answers, seconds, self._counts.totals - totals, self._counts.trips - trips, spent)

    async def _send(self, count: int, at_once: int) -> list[Answer]:
        arguments = ("--send-to", self._url, str(self._sent), str(count), str(at_once))
        self._sent += count
        clients = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.messages", *arguments, cwd=PROJECT, stdout=PIPE
        )
        output, _ = await clients.communicate()
        return [Answer(*fields) for fields in json.loads(output)]

    async def _count_waiting(self) -> int:
        assert isinstance(self._memory, EmbeddedMemory)  # noqa: S101 - the settings' default
        return (await self._memory.progress()).waiting


def build_table(alone: Phase, together: Phase, calibration: float) -> Table:
    """Return the table of what one message costs, alone and with others."""
    table = Table("of one message", "alone", f"{len(together.answers)} by {AT_ONCE} clients")
    for column in table.columns[1:]:
        column.justify = "right"
    phases = (alone, together)
    table.add_row("failed, of all", *(str(each.failed) for each in phases))
    table.add_row("messages/s", *(f"{len(each.answers) / each.seconds:.1f}" for each in phases))
    table.add_row(
        "p50 / p95, ms", *(f"{each.percentile(0.5):.0f} / {each.percentile(0.95):.0f}" for each in phases)
    )
    for name in (
        *("super-steps", "checkpoints", "round trips", "CRM requests"),
        *("texts", "tokens", "texts indexed", "tokens indexed"),
    ):
        table.add_row(name, *(f"{each.per_message(each.counts[name]):.1f}" for each in phases))
    for name in ("event loop", "embedder threads", "other threads", "Postgres"):
        table.add_row(
            f"CPU ms: {name}", *(f"{1_000 * each.per_message(each.cpu[name]):.0f}" for each in phases)
        )
    total = [each.per_message(sum(each.cpu.values())) for each in phases]
    table.add_row("CPU ms: all", *(f"{1_000 * each:.0f}" for each in total))
    table.add_row("CPU, of the calibration loop's", *(f"{each / calibration:.2f}" for each in total))
    return table


def build_trips_table(phase: Phase) -> Table:
    """Return the table of round trips by module."""
    table = Table("round trips of one message, by module", "alone")
    table.columns[1].justify = "right"
    for module, count in phase.trips.most_common():
        table.add_row(module, f"{phase.per_message(count):.1f}")
    return table


async def _command(given: argparse.Namespace) -> int:
    console = Console()
    console.width = max(console.width, 100)
    with tempfile.TemporaryDirectory(prefix="ventros-bench-") as folder:
        data_dir = Path(folder)
        server = ServerSettings().model_copy(update={"host": "127.0.0.1", "port": 0, "data_dir": data_dir})
        settings = Settings.load(server=server, log=LogSettings(level="error"))
        configure_logging(settings.log)
        counts = Counts()
        counts.install()
        async with open_server(settings) as running:
            tune_garbage_collector()
            await running.service.warming
            postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
            bench = Bench(running, counts, postmaster)
            await bench.measure(WARM_UP, 2)
            before = calibrate()
            alone = await bench.measure(given.alone, 1)
            together = await bench.measure(given.together, AT_ONCE)
            calibration = statistics.mean((before, calibrate()))
    console.print(build_table(alone, together, calibration))
    console.print(build_trips_table(alone))
    console.print(f"the calibration loop: {1_000 * calibration:.0f} ms of CPU")
    return 1 if alone.failed or together.failed else 0


async def _send(given: Sequence[str]) -> int:
    url, first, count, at_once = given
    split = urlsplit(url)
    address = split.hostname or "127.0.0.1", split.port or 80
    answers = await send_messages(address, int(first), int(count), int(at_once))
    print(json.dumps([[each.status, each.seconds, each.first, each.complete] for each in answers]))
    return 0


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Measure where the time of one message goes.")
    parser.add_argument("--alone", type=int, default=40, help="messages one after the other")
    parser.add_argument("--together", type=int, default=100, help=f"messages of {AT_ONCE} clients")
    parser.add_argument("--send-to", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_send(given.send_to) if given.send_to else _command(given))


if __name__ == "__main__":
    sys.exit(main())
