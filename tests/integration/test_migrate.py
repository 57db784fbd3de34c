"""``python -m service.cli.database migrate``: what an operator runs before the replicas."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from checkpoints.pool import open_pool
from core.settings import DatabaseSettings
from service.migrations import migrate_all
from tests.support.process import PROJECT, environment
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import running_service, settings_for

SCHEMA_SQL = """
SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 3
"""


@pytest.fixture
async def empty_url(postgres: str) -> Any:
    """A database nobody has made a table in."""
    name = f"test_{uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as server:
        await server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield postgres.replace("/postgres?", f"/{name}?", 1)
        await server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def schema(url: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(SCHEMA_SQL)).fetchall()


async def test_concurrent_migrations_leave_nothing_for_the_service_to_migrate(empty_url: str) -> None:
    settings = settings_for(empty_url)
    database = DatabaseSettings(pool_min_size=0, pool_max_size=2)

    async def job() -> None:
        async with open_pool(empty_url, database) as pool:
            await migrate_all(pool, settings)

    await asyncio.gather(*(job() for _ in range(3)))
    migrated = await schema(empty_url)
    assert migrated
    async with running_service(empty_url, scripted_models(ScriptedChatModel())):
        assert await schema(empty_url) == migrated


async def test_the_command_needs_a_database_url(tmp_path: Path, database_url: str) -> None:
    async def command(**settings: str) -> tuple[int | None, str]:
        env = environment(tmp_path, **settings)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service.cli.database", "migrate", cwd=PROJECT, env=env, stderr=PIPE
        )
        _, errors = await process.communicate()
        return process.returncode, errors.decode()

    code, errors = await command()
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "DATABASE_URL is not set" in errors
    code, errors = await command(DATABASE_URL=database_url)
    assert code == 0, errors
    assert "database_up_to_date" in errors
