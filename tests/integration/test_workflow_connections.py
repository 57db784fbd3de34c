"""Reading a named database: rows become JSON, and statements cannot write, run for long or be chained."""

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from core.errors import StepFailed
from nodes.workflow.executors import build_database_query
from tests.support.workflow_calls import step_call
from workflows.connections import Connections, open_connections
from workflows.steps import DatabaseQuery

TABLES = """
CREATE TABLE invoices (id uuid, due date, paid timestamptz, amount numeric(12, 2), tags text[], raw jsonb,
                       big numeric, rate float8, number int);
INSERT INTO invoices VALUES
    ('550e8400-e29b-41d4-a716-446655440000', '2026-01-31', NULL, 12.50, '{a,b}', '{"x": [1, null]}', 1e30,
     'NaN', 7);
INSERT INTO invoices (number) SELECT generate_series(1, 20);
CREATE FUNCTION write() RETURNS int LANGUAGE sql AS 'INSERT INTO invoices (number) VALUES (99) RETURNING 1';
DO $$ BEGIN
    CREATE ROLE reader LOGIN;
    CREATE ROLE auditor LOGIN BYPASSRLS;
    CREATE ROLE clerk LOGIN NOINHERIT;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;
GRANT ALL ON invoices TO reader;
GRANT pg_read_server_files TO clerk;
"""
LIMIT_BYTES = 20_000


@pytest.fixture(scope="module")
async def connections(shared_database_url: str) -> AsyncIterator[Connections]:
    async with await psycopg.AsyncConnection.connect(shared_database_url, autocommit=True) as connection:
        await connection.execute(TABLES)
    urls = {
        "reports": make_conninfo(shared_database_url, user="reader"),
        "superuser": shared_database_url,
        "auditor": make_conninfo(shared_database_url, user="auditor"),
        "clerk": make_conninfo(shared_database_url, user="clerk"),
        "away": "postgresql://127.0.0.1:1/nothing?connect_timeout=2",
    }
    async with open_connections(urls, max_bytes=LIMIT_BYTES) as opened:
        yield opened


async def read(connections: Connections, sql: str, connection: str = "reports", **step: Any) -> Any:
    model = DatabaseQuery(id="q", type="database_query", connection=connection, sql=sql, **step)
    return await build_database_query(connections)(model, step_call(input={"min": 18, "tags": ["a", "x"]}))


async def test_rows_are_converted_to_json(connections: Connections) -> None:
    assert await read(connections, "SELECT * FROM invoices WHERE id IS NOT NULL") == [
        {
            "id": "550e8400-e29b-41d4-a716-446655440000",
            "due": "2026-01-31",
            "paid": None,
            "amount": "12.50",
            "tags": ["a", "b"],
            "raw": {"x": [1, None]},
            "big": "1000000000000000000000000000000",
            "rate": "nan",
            "number": 7,
        }
    ]


async def test_values_are_bound_and_never_parsed_as_sql(connections: Connections) -> None:
    sql = "SELECT number FROM invoices WHERE number > %(min)s ORDER BY number"
    assert await read(connections, sql, parameters={"min": "{{ input.min }}"}) == [
        {"number": 19},
        {"number": 20},
    ]
    rows = await read(connections, "SELECT %(x)s::text AS x", parameters={"x": "'; DROP TABLE invoices; --"})
    assert rows == [{"x": "'; DROP TABLE invoices; --"}]
    matches = await read(
        connections,
        "SELECT count(*) AS n FROM invoices WHERE tags && %(tags)s",
        parameters={"tags": "{{ input.tags }}"},
    )
    assert matches == [{"n": 1}]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT 1; SELECT 2", "syntax error"),
        ("SELECT 1; DROP TABLE invoices", "syntax error"),
        ("SELECT 1) SELECT 2; DROP TABLE invoices --", "syntax error"),
        ("WITH gone AS (DELETE FROM invoices RETURNING *) SELECT * FROM gone", "data-modifying"),
        ("SELECT write()", "read-only transaction"),
        ("SELECT * INTO copied FROM invoices", "INTO"),
        ("SELECT nextval('x')", "does not exist"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "read-write mode"),
        ("SELECT number FROM invoices", "more than 10 rows"),
    ],
)
async def test_a_statement_can_only_read_a_limited_number_of_rows(
    connections: Connections, sql: str, why: str
) -> None:
    with pytest.raises(StepFailed, match=why) as caught:
        await read(connections, sql, row_limit=10)
    assert not caught.value.retryable
    assert await read(connections, "SELECT count(*) AS n FROM invoices") == [{"n": 21}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 1_000) AS text FROM generate_series(1, 30)",
        # One row that the server does not even send.
        "SELECT repeat('x', 50_000_000) AS text",
        "SELECT repeat('x', 30_000) AS step_rows;",
    ],
)
async def test_rows_have_a_limit_of_bytes_which_the_error_names(connections: Connections, sql: str) -> None:
    with pytest.raises(StepFailed, match=r"20,000 bytes \(WORKFLOW_QUERY_LIMIT_BYTES\)") as caught:
        await read(connections, sql)
    assert caught.value.details == {"limit": "WORKFLOW_QUERY_LIMIT_BYTES", "limit_bytes": LIMIT_BYTES}
    rows = await read(connections, "SELECT repeat('x', 1_000) AS text FROM generate_series(1, 18)")
    assert len(rows) == 18


@pytest.mark.parametrize("connection", ["superuser", "auditor", "clerk"])
async def test_a_role_that_reads_more_than_its_tables_is_refused(
    connections: Connections, connection: str
) -> None:
    with pytest.raises(StepFailed, match="use a role that may only read the tables it needs"):
        await read(connections, "SELECT 1 AS one", connection=connection)


async def test_rows_come_in_the_order_that_the_statement_asks_for(connections: Connections) -> None:
    sql = "SELECT number FROM invoices WHERE number > 0 ORDER BY number DESC LIMIT 3 -- the latest"
    assert [row["number"] for row in await read(connections, sql)] == [20, 19, 18]


async def test_a_slow_statement_is_cancelled_and_frees_its_connection(connections: Connections) -> None:
    for _ in range(5):
        with pytest.raises(StepFailed, match=r"took more than 0\.05 s"):
            await read(connections, "SELECT pg_sleep(5)", timeout_seconds=0.05)
    assert await read(connections, "SELECT 1 AS one") == [{"one": 1}]


async def test_a_statement_leaves_nothing_behind_in_its_session(connections: Connections) -> None:
    await read(connections, "SELECT pg_advisory_lock(42), set_config('statement_timeout', '0', false)")
    held = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND objid = 42"
    assert await read(connections, held) == [{"n": 0}]


async def test_unknown_and_unreachable_databases_fail_the_step(connections: Connections) -> None:
    with pytest.raises(StepFailed, match="WORKFLOW_CONNECTIONS has no 'other'"):
        await read(connections, "SELECT 1", connection="other")
    with pytest.raises(StepFailed, match=r"took more|cannot be reached"):
        await read(connections, "SELECT 1", connection="away", timeout_seconds=0.5)
