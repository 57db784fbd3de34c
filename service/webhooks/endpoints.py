"""The endpoints of tenants: where their events are sent, and the secrets that sign them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from psycopg.rows import DictRow

from core.errors import InvalidRequest, NotFound
from core.postgres import Pool, read_queries
from service.webhooks.signatures import create_secret

QUERIES: Final = read_queries(Path(__file__).parent / "queries.sql")

MAX_ENDPOINTS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a tenant's events are sent.

    Attributes:
        id: Its id.
        url: The address.
        description: The tenant's note.
        types: The types of events it wants; ``None``: all.
        is_enabled: Whether it is sent to. The events of a disabled one wait, as long as events are kept.
        disabled_reason: Why the service disabled it; empty: it did not.
        failing_since: Since when nothing has succeeded; ``None``: the last attempt did.
        is_for_runs: Whether runs name the address, so that the service made the endpoint.
        created_at: When it was made.
        pending: Deliveries that wait or are tried again.
        secret: What signs its webhooks.
    """

    id: str
    url: str
    description: str
    types: list[str] | None
    is_enabled: bool
    disabled_reason: str
    failing_since: datetime | None
    is_for_runs: bool
    created_at: datetime
    pending: int
    secret: str


class EndpointStore:
    """Endpoints in the service's Postgres.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, tenant: str, *, url: str, description: str, types: list[str] | None) -> Endpoint:
        """Create an endpoint with a new secret.

        Raises:
            InvalidRequest: The tenant has :data:`MAX_ENDPOINTS`.
        """
        values = {
            "tenant": tenant,
            "url": url,
            "description": description,
            "types": types,
            "secret": create_secret(),
            "limit": MAX_ENDPOINTS,
        }
        async with self._pool.connection() as connection:
            row = await (await connection.execute(QUERIES["create"], values)).fetchone()
        if row is None:
            raise InvalidRequest(f"this tenant has {MAX_ENDPOINTS} webhooks; delete one first")
        return _build_endpoint(row)

    async def list(self, tenant: str, *, limit: int, offset: int = 0) -> Sequence[Endpoint]:
        """Return the tenant's endpoints, the oldest first."""
        values = {"tenant": tenant, "id": None, "limit": limit, "offset": offset}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(QUERIES["list"], values)).fetchall()
        return [_build_endpoint(row) for row in rows]

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            NotFound: The tenant has none with this id.
        """
        values = {"tenant": tenant, "id": endpoint_id, "limit": 1, "offset": 0}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(QUERIES["list"], values)).fetchone()
        return _build_endpoint(_require(row, endpoint_id))

    async def update(self, tenant: str, endpoint_id: str, changes: Mapping[str, Any]) -> Endpoint:
        """Change an endpoint; what was waiting is sent when it is enabled.

        Args:
            tenant: The tenant.
            endpoint_id: The endpoint.
            changes: Some of ``url``, ``description``, ``types`` and ``is_enabled``.

        Raises:
            NotFound: The tenant has none with this id.
        """
        values = {
            "tenant": tenant,
            "id": endpoint_id,
            "sets_types": "types" in changes,
            **dict.fromkeys(("url", "description", "types", "is_enabled")),
            **changes,
        }
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(QUERIES["update"], values)).fetchone()
            _require(row, endpoint_id)
            if (is_enabled := changes.get("is_enabled")) is not None:
                await connection.execute(QUERIES["resume" if is_enabled else "suspend"], {"id": endpoint_id})
        return await self.get(tenant, endpoint_id)

    async def rotate_secret(self, tenant: str, endpoint_id: str, *, hours: float) -> Endpoint:
        """Give an endpoint a new secret; the one before signs too for some hours.

        Raises:
            NotFound: The tenant has none with this id.
        """
        values = {"tenant": tenant, "id": endpoint_id, "secret": create_secret(), "hours": hours}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(QUERIES["rotate"], values)).fetchone()
        return _build_endpoint(_require(row, endpoint_id))

    async def ensure_for_runs(self, tenant: str, url: str) -> str:
        """Return the endpoint of an address that runs name; it is made where the tenant has none for it.

        Such an endpoint gets the ends of those runs alone. It is listed like any other.
        """
        values = {"tenant": tenant, "url": url, "secret": create_secret()}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(QUERIES["ensure_for_runs"], values)).fetchone()
        return str(row["id"]) if row else ""

    async def delete(self, tenant: str, endpoint_id: str) -> None:
        """Delete an endpoint with its deliveries.

        Raises:
            NotFound: The tenant has none with this id.
        """
        async with self._pool.connection() as connection:
            values = {"tenant": tenant, "id": endpoint_id}
            _require(await (await connection.execute(QUERIES["delete"], values)).fetchone(), endpoint_id)


def _require(row: DictRow | None, endpoint_id: str) -> DictRow:
    if row is None:
        raise NotFound(f"there is no webhook {endpoint_id!r}", details={"id": endpoint_id})
    return row


def _build_endpoint(row: DictRow) -> Endpoint:
    values = {"pending": 0, **row, "id": str(row["id"])}
    return Endpoint(**{name: values[name] for name in Endpoint.__slots__})
