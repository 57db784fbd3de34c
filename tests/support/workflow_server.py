"""An HTTP API for workflows to call, which counts idempotency keys and can misbehave on demand."""

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse

from tests.support.waiting import until


@dataclass(slots=True)
class CountingServer:
    """A running API.

    Attributes:
        url: Its address.
        calls: Number of requests per ``Idempotency-Key``.
        order: The keys in the order of the requests.
        authorization: The last ``Authorization`` header.
        hold: Suffixes of keys whose requests wait until the suffix is removed.
        refuse: Suffixes of keys whose requests get a 404.
    """

    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    authorization: str = ""
    hold: set[str] = field(default_factory=set)
    refuse: set[str] = field(default_factory=set)

    @property
    def host(self) -> str:
        """The host as WORKFLOW_ALLOWED_HOSTS names it."""
        return self.url.removeprefix("http://")


@asynccontextmanager
async def counting_server() -> AsyncIterator[CountingServer]:
    """Serve in this event loop on a free port."""
    state = CountingServer()
    config = uvicorn.Config(_app(state), port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    state.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield state
    state.hold.clear()
    server.should_exit = True
    await serving


def _app(state: CountingServer) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def count(request: Request, call_next: Any) -> Response:
        key = request.headers.get("idempotency-key", "")
        state.calls[key] += 1
        state.order.append(key)
        state.authorization = request.headers.get("authorization", "")
        await until(lambda: not key.endswith(tuple(state.hold)))
        if key.endswith(tuple(state.refuse)):
            return JSONResponse({"error": "not_found"}, 404)
        response: Response = await call_next(request)
        return response

    @app.api_route("/echo/{path:path}", methods=["GET", "POST", "PUT"])
    async def echo(request: Request) -> dict[str, Any]:
        body = await request.body()
        return {
            "path": request.scope["raw_path"].decode(),
            "query": request.url.query,
            "headers": dict(request.headers),
            "body": await request.json() if body else None,
        }

    @app.api_route("/flaky/{failures}", methods=["GET", "POST"])
    async def flaky(failures: int, request: Request) -> Response:
        if state.calls[request.headers["idempotency-key"]] <= failures:
            return JSONResponse({"error": "busy"}, 503)
        return JSONResponse({"done": True})

    _add_faulty_routes(app)
    return app


def _add_faulty_routes(app: FastAPI) -> None:
    @app.get("/status/{status}")
    async def status(status: int) -> Response:
        return JSONResponse({"status": status}, status)

    @app.get("/redirect")
    async def redirect() -> Response:
        return RedirectResponse("http://169.254.169.254/latest/meta-data/")

    @app.get("/large/{size}")
    async def large(size: int) -> Response:
        return Response(b"x" * size, media_type="text/plain")

    @app.get("/gzip")
    async def compressed() -> Response:
        return Response(gzip.compress(b"0" * 1_000), headers={"Content-Encoding": "gzip"})

    @app.get("/broken-json")
    async def broken() -> Response:
        return Response(b"{", media_type="application/json")

    @app.get("/slow")
    async def slow() -> Response:
        await asyncio.sleep(1)
        return Response()

    @app.get("/trickle")
    async def trickle() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x"
                await asyncio.sleep(0.05)

        return StreamingResponse(parts())
