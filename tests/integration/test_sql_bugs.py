"""A bug in our SQL is an error of ours, never an outage of the database."""

import psycopg
import pytest

from core.errors import DatabaseUnavailable, MemoryUnavailable
from core.postgres import DATABASE_UNAVAILABLE
from memory.database import translate_errors
from service.errors import to_service_error


@pytest.mark.parametrize("statement", [b"SELECT no_such_column FROM pg_class", b"SELEC 1", b"SELECT 1 / 0"])
async def test_a_bug_in_our_sql_is_not_reported_as_an_outage(
    database_url: str, statement: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        with pytest.raises(psycopg.Error) as bug:
            await connection.execute(statement)
    assert not isinstance(bug.value, DATABASE_UNAVAILABLE)
    described = to_service_error(bug.value)
    assert (described.status, isinstance(described, DatabaseUnavailable)) == (500, False)
    assert "unforeseen_error" in caplog.text
    with pytest.raises(psycopg.Error), translate_errors():
        raise bug.value


async def test_a_connection_that_is_cut_or_refused_is_an_outage(database_url: str) -> None:
    connection = await psycopg.AsyncConnection.connect(database_url)
    with pytest.raises(DATABASE_UNAVAILABLE) as cut:
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert isinstance(to_service_error(cut.value), DatabaseUnavailable)
    with pytest.raises(DATABASE_UNAVAILABLE) as closed:
        await connection.execute("SELECT 1")
    with pytest.raises(MemoryUnavailable), translate_errors():
        raise closed.value
    with pytest.raises(DATABASE_UNAVAILABLE):
        await psycopg.AsyncConnection.connect("postgresql://127.0.0.1:1/nowhere", connect_timeout=2)
