"""One HTTP request over a raw socket, so that the tests' servers can also send broken HTTP."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Raw:
    """The bytes of a stream of events; with ``ends`` false, the connection closes before the body's end."""

    body: bytes
    ends: bool = True


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request's connection, on which a response is written."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def start_events(self) -> None:
        await self._write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )

    async def event(self, body: Json) -> None:
        await self.chunk(f"data: {json.dumps(body)}\r\n\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self._write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_events(self) -> None:
        await self._write(b"0\r\n\r\n")

    async def whole(self, status: int, body: Json) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} Any\r\nContent-Type: application/json; charset=UTF-8\r\n"
        head += f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        await self._write(head.encode() + data)

    async def client_gone(self) -> None:
        await self.reader.read()

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_raw(self, response: Raw) -> None:
        """Send a stream of events as the test wrote it."""
        await self.start_events()
        if response.body:
            await self.chunk(response.body)
        if response.ends:
            await self.end_events()


async def read_request(reader: asyncio.StreamReader) -> tuple[str, Mapping[str, str], Json]:
    """Return the path, the headers with names in lower case, and the JSON or form of a request's body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    path = head[0].split(" ")[1].partition("?")[0]
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    is_form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    return path, headers, dict(parse_qsl(body.decode())) if is_form else json.loads(body)
