"""What replicas tell each other of runs, through Postgres.

A notification only saves time: whoever waits for one looks by itself now and then, because it may be lost,
and a pooler in transaction mode passes none on.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from checkpoints.pool import connect
from core.logging import get_logger
from core.postgres import Pool
from service.runs.store import CHANNEL

log = get_logger(__name__)

Handler: TypeAlias = Callable[[str], Awaitable[None]]
_LISTEN_SQL: Final = f"LISTEN {CHANNEL}"


class Notifications:
    """Hears notifications, on a connection of its own.

    Args:
        pool: Where to connect.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._handlers: dict[str, Handler] = {}

    def on(self, kind: str, handle: Handler) -> None:
        """Have a function called with the name in each notification of a kind (``free <thread>``)."""
        self._handlers[kind] = handle

    async def listen(self) -> None:
        """Listen until cancelled.

        Raises:
            psycopg.OperationalError: The connection broke; the supervisor starts it again.
        """
        async with await connect(self._pool) as connection:
            await connection.execute(_LISTEN_SQL.encode())
            async for notification in connection.notifies():
                kind, _, name = notification.payload.partition(" ")
                if handle := self._handlers.get(kind):
                    await handle(name)
