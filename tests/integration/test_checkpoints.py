from pathlib import Path

import pytest

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import Pool
from core.errors import StartupError


async def test_each_test_has_a_migrated_database_of_its_own(pool: Pool) -> None:
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT count(*) AS n FROM checkpoints")
        assert await cursor.fetchone() == {"n": 0}


async def test_a_second_service_on_the_same_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    async with embedded_postgres_server(tmp_path):
        with pytest.raises(StartupError, match="in use by another service"):
            async with embedded_postgres_server(tmp_path):
                pass
