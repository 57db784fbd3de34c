"""Simulate three cells: three databases with a service each, and a router that knows the cell of each tenant.

Tenants are spread by rendezvous hashing (Thaler and Ravishankar 1998): a cell that is added takes its share
of the tenants from the others and moves nobody else. The router passes bytes on and reads only the API key.
All tenants do the same work; then the Postgres of one cell is killed. ``make bench-cells`` prints a table; it
takes a minute.
"""

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.clients import Answer, ask
from benchmarks.costs import read_wal_position
from benchmarks.served import NAME
from benchmarks.service import Target, target
from benchmarks.shared_graph import TOKENS
from checkpoints.pool import open_pool
from core.logging import configure_logging
from core.settings import DatabaseSettings, LogSettings
from service.auth.api_keys import KeyStore

CELLS: Final = 3
TENANTS: Final = 30
# Conversations of each tenant in each of the two parts.
RUNS: Final = 8
AT_ONCE: Final = 30
OK: Final = 200
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant of the simulation, its key and the number of its cell."""

    name: str
    cell: int
    key: str


def place(tenant: str, cells: int) -> int:
    """Return the cell of a tenant: the one whose hash with the tenant is highest."""
    return max(range(cells), key=lambda cell: hashlib.sha256(f"{cell} {tenant}".encode()).digest())


@asynccontextmanager
async def route(cells: Mapping[bytes, tuple[str, int]]) -> AsyncIterator[tuple[str, int]]:
    """Pass connections on to the cell of their API key while the context is open; yields the address.

    Args:
        cells: Address of the cell by API key.
    """

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                writer.write(piece)
                await writer.drain()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            key = head.partition(b"Bearer ")[2].partition(b"\r\n")[0]
            answers, upstream = await asyncio.open_connection(*cells[key])
            upstream.write(head)
            sending = asyncio.create_task(copy(reader, upstream))
            await copy(answers, writer)
            sending.cancel()
        except (OSError, KeyError, asyncio.IncompleteReadError):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n")
        finally:
            writer.close()
            if upstream:
                upstream.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()[:2]
        yield host, port


async def create_tenants(targets: Sequence[Target]) -> list[Tenant]:
    """Give each tenant a key, in the database of its cell."""
    tenants = []
    for cell, to in enumerate(targets):
        async with open_pool(to.database, DatabaseSettings(pool_min_size=1)) as pool:
            keys = KeyStore(pool)
            for name in (f"tenant-{number}" for number in range(TENANTS)):
                if place(name, len(targets)) == cell:
                    key = await keys.create(name, ["runs"])
                    tenants.append(Tenant(name, cell, key.text))
    return tenants


async def converse(address: tuple[str, int], tenants: Sequence[Tenant]) -> dict[int, list[Answer]]:
    """Hold the conversations of all tenants through the router, and return the answers by cell."""
    body = {"input": {"message": "How do I export my contacts?", "contact_id": "c1"}}
    remaining = iter([tenant for _ in range(RUNS) for tenant in tenants])
    answers: dict[int, list[Answer]] = {cell: [] for cell in range(CELLS)}

    async def client() -> None:
        # All clients share one iterator.
        for tenant in remaining:
            end = f"word{TOKENS - 1}".encode()
            answer = await ask(address, f"/{NAME}/invoke", body, token=b"{", end=end, key=tenant.key)
            answers[tenant.cell].append(answer)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return answers


def _percentile(answers: Sequence[Answer], share: float) -> float:
    ordered = sorted(answer.seconds for answer in answers)
    return 1e3 * ordered[int(share * (len(ordered) - 1))]


async def main() -> None:
    """Simulate the cells, and print what was measured."""
    configure_logging(LogSettings(level="error"))
    console = Console()
    console.width = max(console.width, 130)
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        settings = {"AUTH_API_KEYS": "true", "LOG_LEVEL": "error"}
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-bench-")))
            for _ in range(CELLS)
        ]
        targets = await asyncio.gather(
            *(stack.enter_async_context(target(folder, AT_ONCE, settings=settings)) for folder in folders)
        )
        tenants = await create_tenants(targets)
        cells = {tenant.key.encode(): targets[tenant.cell].address for tenant in tenants}
        address = await stack.enter_async_context(route(cells))
        await converse(address, tenants)
        before = [(to.cpu_seconds, to.database_cpu_seconds, await read_wal_position(to)) for to in targets]
        own = time.process_time()
        whole = await converse(address, tenants)
        own = 1e3 * (time.process_time() - own) / sum(map(len, whole.values()))
        after = [(to.cpu_seconds, to.database_cpu_seconds, await read_wal_position(to)) for to in targets]
        targets[0].postmaster.kill()
        outage = await converse(address, tenants)

        table = Table(
            title=f"{TENANTS} tenants in {CELLS} cells, {AT_ONCE} clients; load {os.getloadavg()[0]:.1f}"
        )
        for column in ("cell", "tenants", "runs", "failed", "service, ms CPU", "Postgres, ms CPU", "WAL, KB"):
            table.add_column(column, justify="right")
        for column in ("p50", "cell 1 without its database: failed", "p50 "):
            table.add_column(column, justify="right")
        for cell, (old, new) in enumerate(zip(before, after, strict=True)):
            runs = len(whole[cell])
            service, database, wal = ((new[part] - old[part]) / runs for part in range(3))
            failed = [sum(answer.status != OK for answer in part[cell]) for part in (whole, outage)]
            table.add_row(
                str(cell + 1),
                str(sum(tenant.cell == cell for tenant in tenants)),
                *(str(runs), str(failed[0])),
                *(f"{1e3 * service:.1f}", f"{1e3 * database:.1f}", f"{wal / 1_024:.1f}"),
                f"{_percentile(whole[cell], 0.5):.0f} ms",
                *(f"{failed[1]} of {len(outage[cell])}", f"{_percentile(outage[cell], 0.5):.0f} ms"),
            )
        console.print(table)
        seconds = time.perf_counter() - began
        console.print(f"router and clients: {own:.2f} ms CPU a run; {seconds:.0f} s in all")


if __name__ == "__main__":
    uvloop.run(main())
