"""Many clients at once, cheap enough to share two cores with what they measure: HTTP/1.1 on bare sockets."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# A proxy's usual limit; what takes longer counts as failed.
SECONDS: Final = 300.0
_PIECE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to.

    Attributes:
        status: Of the response; 0: there was none.
        seconds: To its last byte.
        first: To the first byte of its first token; None without one.
        complete: Whether what marks the end was there.
    """

    status: int
    seconds: float
    first: float | None
    complete: bool


async def ask(
    address: tuple[str, int], path: str, body: Mapping[str, Any], *, token: bytes, end: bytes
) -> Answer:
    """Post JSON and read the answer to its end.

    Args:
        address: Host and port.
        path: Where to.
        body: What.
        token: What the first token's piece of the stream holds.
        end: What a whole answer ends with, or holds near its end.
    """
    started = time.perf_counter()
    try:
        async with asyncio.timeout(SECONDS):
            return await _asked(address, _request(path, body), token, end, started)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return Answer(0, time.perf_counter() - started, None, complete=False)


def _request(path: str, body: Mapping[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


async def _asked(
    address: tuple[str, int], request: bytes, token: bytes, end: bytes, started: float
) -> Answer:
    reader, writer = await asyncio.open_connection(*address)
    first: float | None = None
    tail = b""
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        while piece := await reader.read(_PIECE):
            if first is None and token in piece:
                first = time.perf_counter() - started
            # Of an invoke the whole answer is in the last piece, of a stream its end.
            tail = (tail + piece)[-16_384:]
    finally:
        writer.close()
    return Answer(status, time.perf_counter() - started, first, complete=end in tail)
