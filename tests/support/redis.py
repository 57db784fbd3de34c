"""A local server that speaks the Redis protocol, so that tests run the real client over a real socket.

It knows the commands the cache uses, answers in RESP3 (https://redis.io/docs/latest/develop/reference/protocol-spec),
and can be told to hold its answers back.
"""

import asyncio
import fnmatch
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any


class RedisServer:
    """See the module.

    Attributes:
        url: The address it listens on.
        values: The stored values, each with the second at which it expires.
        clock: The current second; a test may move it.
        open_gate: Answers to ``MGET`` wait for it.
        commands: The commands it received, in order.
    """

    def __init__(self) -> None:
        self.url = ""
        self.values: dict[bytes, tuple[bytes, float]] = {}
        self.clock: Callable[[], float] = asyncio.get_running_loop().time
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.commands: list[str] = []
        self.connections: set[asyncio.Task[None]] = set()

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            queued: list[bytes] = []
            while command := await _read_command(reader):
                writer.write(await self._answer(command, queued))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client disconnected, as some tests intend
        finally:
            self.connections.discard(task)
            writer.close()

    async def _answer(self, command: list[bytes], queued: list[bytes]) -> bytes:
        name, *arguments = command
        verb = name.decode().upper()
        self.commands.append(verb)
        answer = b"-ERR unknown command\r\n"
        match verb:
            case "HELLO":
                answer = _map({b"server": b"redis", b"version": b"7.4.0", b"proto": 3})
            case "CLIENT":
                answer = b"+OK\r\n"
            case "MGET":
                answer = _array([self._get(key) for key in arguments])
                await self.open_gate.wait()
            case "MULTI":
                answer = b"+OK\r\n"
            case "SETEX":
                key, seconds, value = arguments
                self.values[key] = (value, self.clock() + int(seconds))
                queued.append(b"+OK\r\n")
                answer = b"+QUEUED\r\n"
            case "EXEC":
                answer = b"*%d\r\n" % len(queued) + b"".join(queued)
                queued.clear()
            case "KEYS":
                pattern = arguments[0].decode()
                answer = _array([key for key in self.values if fnmatch.fnmatchcase(key.decode(), pattern)])
            case "DEL":
                answer = b":%d\r\n" % sum(self.values.pop(key, None) is not None for key in arguments)
        return answer

    def _get(self, key: bytes) -> bytes | None:
        value, until = self.values.get(key, (b"", 0.0))
        return value if self.clock() < until else None


@asynccontextmanager
async def redis_server() -> AsyncIterator[RedisServer]:
    """Run a server on a free port of the loopback interface."""
    server = RedisServer()
    listener = await asyncio.start_server(server.on_connection, "127.0.0.1", 0)
    server.url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"
    try:
        yield server
    finally:
        listener.close()
        for connection in list(server.connections):
            connection.cancel()
        await asyncio.gather(*server.connections, return_exceptions=True)


async def _read_command(reader: asyncio.StreamReader) -> list[bytes]:
    head = await reader.readline()
    if not head:
        return []
    words = []
    for _ in range(int(head[1:])):
        length = int((await reader.readline())[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


def _bulk(value: Any) -> bytes:
    if value is None:
        return b"_\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    return b"$%d\r\n%b\r\n" % (len(value), value)


def _array(values: list[Any]) -> bytes:
    return b"*%d\r\n" % len(values) + b"".join(map(_bulk, values))


def _map(values: dict[bytes, Any]) -> bytes:
    pairs = b"".join(_bulk(key) + _bulk(value) for key, value in values.items())
    return b"%%%d\r\n" % len(values) + pairs
