"""The processes that serve one port: each asks the others for their health and their metrics.

A request for ``/health`` or ``/metrics`` reaches any one of them, which asks the others over Unix sockets in
a directory that only the service's user can enter. A question is a line; its answer ends with the connection.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from core.logging import get_logger
from service.observability.metrics import PREFIX

log = get_logger(__name__)

Question: TypeAlias = Literal["health", "metrics"]
TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The processes that serve one port.

    Attributes:
        number: This one, from 1.
        count: How many there are.
        folder: Where their sockets are.
    """

    number: int
    count: int
    folder: Path

    @asynccontextmanager
    async def answer(self, answers: Mapping[Question, Callable[[], Awaitable[str]]]) -> AsyncIterator[None]:
        """Answer the others' questions while the context is open."""

        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                question = (await reader.readline()).decode().strip()
                if answer := next((answers[known] for known in answers if known == question), None):
                    writer.write((await answer()).encode())
                    await writer.drain()
            except OSError as error:
                log.debug("peer_left", reason=str(error))
            finally:
                writer.close()

        path = self._socket(self.number)
        # Left behind by a process of this number that was killed.
        path.unlink(missing_ok=True)
        async with await asyncio.start_unix_server(reply, path):
            yield

    async def ask(self, question: Question) -> Mapping[int, str]:
        """Return what each of the others answers; empty: it does not, within two seconds."""
        others = [number for number in range(1, self.count + 1) if number != self.number]
        answers = await asyncio.gather(*(self._ask(number, question) for number in others))
        return dict(zip(others, answers, strict=True))

    async def _ask(self, number: int, question: Question) -> str:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket(number))
                try:
                    writer.write(f"{question}\n".encode())
                    return (await reader.read()).decode()
                finally:
                    writer.close()
        return ""

    def _socket(self, number: int) -> Path:
        return self.folder / f"{number}.sock"


def write_metrics(registry: CollectorRegistry) -> str:
    """Return a process's instruments for :func:`merge_metrics`."""
    return str(generate_latest(registry).decode())  # type: ignore[no-untyped-call]


def merge_metrics(own: CollectorRegistry, number: int, others: Mapping[int, str]) -> CollectorRegistry:
    """Return the instruments of all processes, each with the label ``process``.

    Args:
        own: The instruments of this process.
        number: Which one it is.
        others: What :func:`write_metrics` returned in the others; empty: there was no answer.
    """
    texts = {number: write_metrics(own), **others}
    families: dict[str, Metric] = {}
    up = Metric(f"{PREFIX}process_up", "Whether a process of the service answers", "gauge")
    for process, text in sorted(texts.items()):
        label = {"process": str(process)}
        up.add_sample(up.name, label, 1 if text else 0)
        parsed: Iterable[Metric] = text_string_to_metric_families(text or "# EOF\n")  # type: ignore[no-untyped-call]
        for family in parsed:
            known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples += [sample._replace(labels={**label, **sample.labels}) for sample in family.samples]
    registry = CollectorRegistry()
    registry.register(_Collected([up, *families.values()]))
    return registry


class _Collected(Collector):
    """Metrics that were collected before."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families
