"""The company the CRM starts with, from the data files in ``crm/seed``."""

import asyncio
import json
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from crm.database import Connection

SEED = Path(__file__).parent / "seed"

# In the order of their foreign keys; each is a table and a file.
TABLES = ("contacts", "subscriptions", "tickets", "messages", "articles", "components", "incidents")

INSERT_SQL = sql.SQL(
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, %s) "
    "ON CONFLICT DO NOTHING"
)


async def seed(connection: Connection) -> None:
    """Insert the rows of the data files that are not there yet."""
    for name in TABLES:
        rows: list[dict[str, Any]] = json.loads(await asyncio.to_thread((SEED / f"{name}.json").read_bytes))
        statement = INSERT_SQL.format(
            table=sql.Identifier("crm", name), columns=sql.SQL(", ").join(map(sql.Identifier, rows[0]))
        )
        await connection.execute(statement, (Jsonb(rows),))
