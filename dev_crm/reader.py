"""A role that may read the development CRM's tables and nothing else, for workflows' queries."""

from typing import Final

from psycopg.conninfo import make_conninfo

from core.postgres import Pool, lock_migrations

READER: Final = "crm_reader"

# Without a password: it logs in only where the server trusts its socket, as the embedded one does. Answers of
# requests are not part of the CRM's data.
CREATE_READER_SQL: Final = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN
        CREATE ROLE {READER} LOGIN NOINHERIT CONNECTION LIMIT 20;
    END IF;
END $$;
GRANT USAGE ON SCHEMA crm TO {READER};
GRANT SELECT ON ALL TABLES IN SCHEMA crm TO {READER};
REVOKE ALL ON crm.idempotency_keys, crm.migrations FROM {READER};
"""  # noqa: S608 - a constant


async def open_reader(pool: Pool) -> str:
    """Create the role, if need be, and return the connection string with which it logs in.

    A role is needed, because a statement could end a mere ``SET ROLE`` of the service's own.

    Args:
        pool: A pool of the database whose schema ``crm`` is migrated, with a user that may create roles.
    """
    async with pool.connection() as connection, connection.transaction():
        await lock_migrations(connection, "crm")
        # A prepared statement cannot hold several statements.
        await connection.execute(CREATE_READER_SQL.encode(), prepare=False)
        # The service's own address, which comes without a password.
        return make_conninfo(connection.info.dsn, user=READER)
