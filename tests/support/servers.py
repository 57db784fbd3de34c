"""What some tests need besides the packages: whether it is there, and a Redis of a test's own."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.waiting import until

PROJECT = Path(__file__).parents[2]
CONSOLE_PYTHON = PROJECT / ".venv-console" / "bin" / "python"
# Deque's engine, which finds what keeps people out of a page: contrast, names, roles.
AXE = PROJECT / "tests" / "javascript" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BROKER_ADDRESS = ("127.0.0.1", 5672)
BROKER_URL = "amqp://guest:guest@{host}:{port}/"


@cache
def find_broker_fault() -> str:
    """Return why tests with RabbitMQ cannot run; empty: they can."""
    try:
        with socket.create_connection(BROKER_ADDRESS, timeout=2):
            return ""
    except OSError:
        return "no RabbitMQ listens on 127.0.0.1:5672"


@cache
def find_redis_fault() -> str:
    """Return why tests with Redis cannot run; empty: they can."""
    return "" if shutil.which("redis-server") else "the program redis-server is not installed"


@cache
def find_browser_fault() -> str:
    """Return why tests of the console cannot run; empty: they can."""
    if CHROMIUM is None:
        return "there is no browser (on Debian: apt-get install chromium)"
    if not CONSOLE_PYTHON.exists():
        return "the console is not installed (`make check` installs it)"
    return "" if AXE.exists() else "axe-core is not installed (`make javascript` installs it)"


# By the marker of the tests that need them.
SERVERS: Mapping[str, Callable[[], str]] = {
    "rabbitmq": find_broker_fault,
    "redis": find_redis_fault,
    "browser": find_browser_fault,
}


@dataclass(slots=True)
class RedisProcess:
    """A Redis of a test's own, without persistence, which the test may stop and start.

    Attributes:
        url: Its address.
        port: Its port, the same after a stop.
        folder: Its working directory.
    """

    url: str
    port: int
    folder: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        arguments = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self.process = await asyncio.create_subprocess_exec(
            "redis-server", *arguments, cwd=self.folder, stdout=asyncio.subprocess.DEVNULL
        )
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return

    async def stop(self) -> None:
        """Kill it; what it held is gone."""
        if self.process:
            self.process.kill()
            await self.process.wait()
            self.process = None


@asynccontextmanager
async def redis_process(folder: Path) -> AsyncIterator[RedisProcess]:
    """Run a Redis on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = RedisProcess(f"redis://127.0.0.1:{port}/0", port, folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Proxy:
    """A way to a server that can be cut and opened again, as when the server goes away and comes back.

    Args:
        target: Host and port of the server.

    Attributes:
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        if self._server:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        # Their tasks notice.
        await until(lambda: not self._writers)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # it was cut
        finally:
            writer.close()
            self._writers.discard(writer)


@asynccontextmanager
async def proxy_to(target: tuple[str, int]) -> AsyncIterator[Proxy]:
    """Open a way to a server, and cut it at the end."""
    proxy = Proxy(target)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.cut()
