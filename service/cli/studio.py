"""``make studio-dev``: run LangGraph's dev server on ``langgraph.json``, with the development CRM beside it.

The dev server keeps threads in memory; the development CRM has an embedded Postgres of its own, so that the
service and Studio can run at the same time.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.errors import StartupError
from core.settings import Settings
from dev_crm.app import create_crm
from dev_crm.migrations import migrate


class _DevelopmentCrm:
    """Stands for the CRM until it is open: the dev server copies routes before it opens the lifespan."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app or JSONResponse(
            {"error": "not_found", "message": "CRM_API_BASE is set"}, status_code=404
        )
        await app(scope, receive, send)


_crm = _DevelopmentCrm()


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    settings = Settings.load()
    if settings.crm.api_base:
        yield
        return
    data_dir = settings.server.data_dir / "studio"
    async with (
        embedded_postgres_server(data_dir) as url,
        open_pool(url, settings.database) as pool,
    ):
        await migrate(pool)
        _crm.app = create_crm(pool, settings.crm.api_key)
        yield


# The dev server mounts this beside its own routes (langgraph.json, http.app).
app = FastAPI(title="Ventros Agents: Studio", lifespan=_lifespan, openapi_url=None)
app.mount("/crm", _crm)


def main() -> int:
    """Replace this process with the dev server; return 1 where the settings are invalid."""
    try:
        settings = Settings.load()
    except StartupError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        return 1
    langgraph = Path(sys.executable).parent / "langgraph"
    port = str(settings.server.studio_port)
    os.execv(langgraph, [str(langgraph), "dev", "--no-browser", "--no-reload", "--port", port, *sys.argv[1:]])  # noqa: S606
    return 1


if __name__ == "__main__":
    sys.exit(main())
