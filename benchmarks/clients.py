"""An HTTP/1.1 client on bare sockets, cheap enough to share two cores with the service it measures."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# The usual limit of a proxy; a request that takes longer counts as failed.
SECONDS: Final = 300.0
_PIECE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one request.

    Attributes:
        status: The status of the response; 0: there was no response.
        seconds: Seconds until the last byte.
        first: Seconds until the first byte of the first token; None: there was no token.
        complete: Whether the response had its end mark.
    """

    status: int
    seconds: float
    first: float | None
    complete: bool


async def ask(
    address: tuple[str, int],
    path: str,
    body: Mapping[str, Any],
    *,
    token: bytes,
    end: bytes,
    key: str = "",
) -> Answer:
    """Post JSON and read the answer to its end.

    Args:
        address: Host and port.
        path: The path of the request.
        body: The JSON body.
        token: Bytes that mark the piece of the stream with the first token.
        end: The end mark: bytes at or near the end of a complete response.
        key: The API key; empty: the service asks for none.
    """
    started = time.perf_counter()
    try:
        async with asyncio.timeout(SECONDS):
            return await _asked(address, build_request(path, body, key=key), token, end, started)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return Answer(0, time.perf_counter() - started, None, complete=False)


def build_request(path: str, body: Mapping[str, Any], *, key: str = "") -> bytes:
    """Return the bytes of a request that posts JSON and has the connection closed after the answer."""
    content = json.dumps(body).encode()
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"{authorization}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
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
            # The last piece holds the whole response of an invoke, and the end of a stream.
            tail = (tail + piece)[-16_384:]
    finally:
        writer.close()
    return Answer(status, time.perf_counter() - started, first, complete=end in tail)
