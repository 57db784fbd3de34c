"""Fixtures every test may use: one real Postgres for the session, a database of its own for each test."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

import tests.support.profiles  # noqa: F401 - loads the profile of the property tests
from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from checkpoints.saver import open_saver
from core.logging import configure_logging
from core.postgres import Pool
from core.settings import DatabaseSettings, LogSettings
from dev_crm.migrations import migrate
from memory.database import migrate as migrate_memory
from memory.database import open_extensions
from service.cli.serve import tune_garbage_collector
from service.migrations import migrate_rooms
from tests.support.clock import MOMENT
from tests.support.savers import closing_savers
from tests.support.servers import SERVERS

TEMPLATE = "template_ventros"
SHARED_MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 2**30

# Collecting tests only makes objects that stay; examining them again and again would take seconds.
gc.disable()


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: half of the time a test waits for processes, databases and deadlines."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_finish() -> None:
    """From here on, collect garbage as the service does: full collections took a fifth of all tests."""
    tune_garbage_collector()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a server where there is none, or fail them where REQUIRE_ALL says so."""
    for name, find_fault in SERVERS.items():
        if item.get_closest_marker(name) and (fault := find_fault()):
            if os.environ.get("REQUIRE_ALL"):
                pytest.fail(f"REQUIRE_ALL is set, and {fault}", pytrace=False)
            pytest.skip(fault)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests read neither the developer's environment nor a ``.env``."""
    for name in (
        "DATABASE_URL",
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_LOCATION",
        "GOOGLE_CLOUD_PROJECT",
        "MODEL",
        "CRM_API_BASE",
        "LANGSMITH_TRACING",
        "REDIS_URL",
        "AMQP_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def no_article_index() -> Iterator[None]:
    """Articles are found by the CRM's own search, whose results do not depend on when an index is ready."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRM_ARTICLES_SYNC_SECONDS", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def logs() -> None:
    """Log lines as the service writes them; pytest shows those of a failed test."""
    configure_logging(LogSettings(format="json"), stream=sys.stdout)


@pytest.fixture(scope="session", autouse=True)
def _prompt_day() -> Iterator[None]:
    """The day in every prompt is the same, so that snapshots are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nodes.shared.prompts.get_current_time", lambda: MOMENT)
        yield


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[str]:
    """URL of a server with a migrated template database.

    Not in pytest's own folder: as root, another session that begins closes that to the server's user. In
    memory where there is room: making a database is making some hundred files.
    """
    with tempfile.TemporaryDirectory(prefix="ventros-tests-", dir=_in_memory()) as folder:
        async with _server(Path(folder)) as url:
            yield url


def _in_memory() -> Path | None:
    """A file system in memory with room for the server; None: the usual place."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None
    return SHARED_MEMORY if free > ROOM_BYTES and os.access(SHARED_MEMORY, os.W_OK) else None


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[str]:
    async with embedded_postgres_server(folder) as url:
        # Making a database for each test is most of what Postgres does here; none has to survive a crash.
        for setting in ("fsync", "full_page_writes"):
            await _execute(url, sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        await _execute(url, sql.SQL("SELECT pg_reload_conf()").format())
        await _execute(url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        template = open_pool(_database(url, TEMPLATE), DatabaseSettings(pool_min_size=0))
        async with template as pool, open_saver(pool):
            await migrate(pool)
            await migrate_memory(pool)
            await migrate_rooms(pool)
            await open_extensions(pool)
        yield url


@pytest.fixture
async def database_url(postgres: str) -> AsyncIterator[str]:
    """URL of a fresh, migrated database, dropped after the test."""
    async with _fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
async def shared_database_url(postgres: str) -> AsyncIterator[str]:
    """The same for a whole module, whose tests keep out of each other's way."""
    async with _fresh_database(postgres) as url:
        yield url


@asynccontextmanager
async def _fresh_database(postgres: str) -> AsyncIterator[str]:
    name = f"test_{uuid4().hex}"
    # Half the time of the default, which writes every page to the log too.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    await _execute(postgres, create.format(sql.Identifier(name), sql.Identifier(TEMPLATE)))
    yield _database(postgres, name)
    await _execute(postgres, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """A pool on the test's own database."""
    settings = DatabaseSettings(pool_min_size=0, pool_max_size=8)
    async with open_pool(database_url, settings) as opened, closing_savers(opened):
        yield opened


async def _execute(url: str, statement: sql.Composed) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement)


def _database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?", 1)
