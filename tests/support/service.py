"""The service, running in the test's own loop and listening on a real port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from langserve import RemoteRunnable
from pydantic import SecretStr

from core.models import ChatModels
from core.settings import DatabaseSettings, QueueSettings, ServerSettings, Settings
from service.cli.serve import open_server
from service.lifespan import Service

CONTACT = "550e8400-e29b-41d4-a716-446655440000"
EXPORT_TASK = "Customer reports 'Error 500' when trying to export contacts. Help diagnose and resolve."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningService:
    """A running service: its address, and the open service itself."""

    url: str
    service: Service
    http: httpx.AsyncClient

    @property
    def react(self) -> RemoteRunnable[dict[str, Any], dict[str, Any]]:
        """LangServe's client of the graph."""
        return RemoteRunnable(f"{self.url}/react")

    async def crm(self, path: str) -> Any:
        """Read a path of the development CRM."""
        key = self.service.settings.crm.api_key.get_secret_value()
        found = await self.http.get(f"/crm/api/v1{path}", headers={"Authorization": f"Bearer {key}"})
        return found.raise_for_status().json()


def settings_for(database_url: str, **groups: Any) -> Settings:
    """Return settings with a test's database; groups that are passed replace the defaults.

    No jobs run, as periodic ones come with the clock; ``queue=QueueSettings()`` has them run.
    """
    groups.setdefault(
        "database", DatabaseSettings(url=SecretStr(database_url), pool_min_size=1, pool_max_size=8)
    )
    groups.setdefault("queue", QueueSettings(concurrency=0))
    return Settings.load(**groups)


@asynccontextmanager
async def running_service(
    database_url: str, models: ChatModels | None = None, **groups: Any
) -> AsyncIterator[RunningService]:
    """Open the service and serve it until the context closes."""
    groups.setdefault("server", ServerSettings(port=0))
    async with (
        open_server(settings_for(database_url, **groups), models) as up,
        # Reading the public authorities takes longer than most calls, which are plain HTTP.
        httpx.AsyncClient(base_url=up.url, timeout=60, verify=False) as http,
    ):
        yield RunningService(url=up.url, service=up.service, http=http)
