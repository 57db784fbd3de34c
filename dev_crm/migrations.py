"""The schema ``crm``: its append-only migrations and the seed data."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from core import postgres
from core.postgres import Connection, Migration, Pool

ROOM = Path(__file__).parent

# Each is a table and a file in ``seed/``, in the order of the foreign keys.
SEEDED_TABLES = (
    "contacts",
    "subscriptions",
    "tickets",
    "messages",
    "articles",
    "components",
    "incidents",
    "profiles",
    "opportunities",
    "orders",
    "invoices",
)

INSERT_SQL = sql.SQL(
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, %s) "
    "AS new WHERE {condition} ON CONFLICT DO NOTHING"
)
# In a database in use, a contact that the seed files refer to may have been deleted.
CONTACT_EXISTS_SQL = sql.SQL("EXISTS (SELECT FROM crm.contacts WHERE contacts.id = new.contact_id)")


def seed_tables(*tables: str) -> Callable[[Connection], Awaitable[None]]:
    """Return a migration that inserts the rows of these tables' seed files; existing rows are left alone."""

    async def seed(connection: Connection) -> None:
        for table in tables:
            file = ROOM / "seed" / f"{table}.json"
            rows: list[dict[str, Any]] = json.loads(await asyncio.to_thread(file.read_bytes))
            statement = INSERT_SQL.format(
                table=sql.Identifier("crm", table),
                columns=sql.SQL(", ").join(map(sql.Identifier, rows[0])),
                condition=CONTACT_EXISTS_SQL if "contact_id" in rows[0] else sql.SQL("true"),
            )
            await connection.execute(statement, (Jsonb(rows),))

    return seed


# Position is version: append, never edit or reorder. When seed files gain rows, append ``seed_tables`` of
# their tables.
MIGRATIONS: tuple[Migration, ...] = (
    (ROOM / "sql" / "0001_schema.sql").read_bytes(),
    seed_tables(*SEEDED_TABLES),
    seed_tables("articles"),
)


async def migrate(pool: Pool) -> None:
    """Bring the schema up to date; see :func:`core.postgres.migrate`."""
    await postgres.migrate(pool, "crm", MIGRATIONS)
