"""Run the jobs of the task queue without serving HTTP: ``make worker``."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.errors import StartupError
from core.models import ChatModels
from core.settings import Settings
from service.cli.running import hold_open, run_until_stopped
from service.cli.serve import tune_garbage_collector
from service.lifespan import Service, open_service
from service.version import VERSION


def main() -> int:
    """Work until SIGINT or SIGTERM; see :func:`service.cli.running.run_until_stopped`."""
    return run_until_stopped(_work_until_signal)


@asynccontextmanager
async def open_worker(settings: Settings, models: ChatModels | None = None) -> AsyncIterator[Service]:
    """Open the service without HTTP; at the end, jobs and runs drain.

    Args:
        settings: What to open.
        models: Replace the models the settings name.

    Raises:
        StartupError: The settings let it run no jobs, or a dependency is not available.
    """
    if not settings.queue.concurrency:
        raise StartupError("QUEUE_CONCURRENCY=0: a worker would run no jobs; set it to at least 1")
    async with open_service(settings, models=models) as service:
        try:
            yield service
        finally:
            service.queue.stop()
            # Jobs may wait for runs.
            service.runs.begin_drain()


def build_startup_message(service: Service) -> str:
    """Return what the operator reads."""
    settings = service.settings
    database = "external (DATABASE_URL)" if settings.database.url else "embedded"
    return f"""
  Ventros Agents {VERSION}, worker
  model       {service.model.model}  ({service.model.why})
  database    {database}
  jobs        {settings.queue.concurrency} at once
"""


async def _work_until_signal(settings: Settings) -> None:
    def announce(service: Service) -> None:
        tune_garbage_collector()
        print(build_startup_message(service), flush=True)  # noqa: T201 - the operator's terminal

    await hold_open(open_worker(settings), announce)


if __name__ == "__main__":
    sys.exit(main())
