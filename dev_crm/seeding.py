"""The company the CRM starts with, from the data files in ``crm/seed``."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from core.postgres import Connection

SEED = Path(__file__).parent / "seed"

# In the order of their foreign keys; each is a table and a file.
SUPPORT = ("contacts", "subscriptions", "tickets", "messages", "articles", "components", "incidents")
SALES = ("profiles", "opportunities", "orders", "invoices")

INSERT_SQL = sql.SQL(
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, %s) "
    "AS new WHERE {wanted} ON CONFLICT DO NOTHING"
)
# A database in use may have lost a contact that the files speak of.
OF_A_CONTACT_SQL = sql.SQL("EXISTS (SELECT FROM crm.contacts WHERE contacts.id = new.contact_id)")
ANY_SQL = sql.SQL("true")


def seeds(*tables: str) -> Callable[[Connection], Awaitable[None]]:
    """What inserts the rows of these tables' data files that are not there yet."""

    async def seed(connection: Connection) -> None:
        for table in tables:
            await _insert(connection, table)

    return seed


async def _insert(connection: Connection, table: str) -> None:
    rows: list[dict[str, Any]] = json.loads(await asyncio.to_thread((SEED / f"{table}.json").read_bytes))
    statement = INSERT_SQL.format(
        table=sql.Identifier("crm", table),
        columns=sql.SQL(", ").join(map(sql.Identifier, rows[0])),
        wanted=OF_A_CONTACT_SQL if "contact_id" in rows[0] else ANY_SQL,
    )
    await connection.execute(statement, (Jsonb(rows),))
