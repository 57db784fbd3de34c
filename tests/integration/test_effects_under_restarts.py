"""Effects that are made while the database is killed again and again: none is lost, none stays ``begun``."""

import asyncio
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from checkpoints.pool import open_pool
from core.errors import DatabaseUnavailable
from core.postgres import Pool
from core.settings import DatabaseSettings
from service.audit.idempotency import RecordedEffects
from service.migrations import migrate_rooms
from tests.support.audit import act_on_new_thread, fetch_rows
from tests.support.database import Database, database
from tests.support.waiting import until

RESTARTS: Final = 4
WORKERS: Final = 6
# Effects that are made between two kills.
BETWEEN: Final = 30
TEXT: Final = {"contact_id": "c-1", "text": "Use the batch export API, Ana."}


class Effects:
    """Workers that make one effect after the other, each until its outcome is known.

    Attributes:
        made: Calls of the other side by key.
        known: The keys whose outcome was returned, with the outcome.
    """

    def __init__(self, pool: Pool) -> None:
        self._effects = RecordedEffects(pool)
        self._is_over = False
        self.made: dict[str, int] = {}
        self.known: dict[str, Any] = {}
        self.interrupted = 0

    async def work(self) -> None:
        """Make effects until told to stop, the last one to its end."""
        while not self._is_over:
            key = act_on_new_thread().run_id
            while key not in self.known:
                await self._attempt(key)

    def has_made(self, count: int) -> bool:
        """Return whether the outcomes of so many effects are known."""
        return len(self.known) >= count

    def stop(self) -> None:
        """Have the workers finish what they have begun."""
        self._is_over = True

    async def _attempt(self, key: str) -> None:
        async def outside() -> dict[str, Any]:
            self.made[key] = self.made.get(key, 0) + 1
            await asyncio.sleep(0)
            return {"id": key}

        try:
            self.known[key] = await self._effects.run_once(key, "send_message", TEXT, outside)
        except DatabaseUnavailable:
            self.interrupted += 1
            await asyncio.sleep(0)


async def kill_repeatedly(db: Database, effects: Effects) -> None:
    for _ in range(RESTARTS):
        enough = len(effects.known) + BETWEEN
        await until(partial(effects.has_made, enough))
        await db.kill()
        await db.start()


async def test_effects_and_their_outcomes_survive_a_database_that_is_killed_repeatedly(
    tmp_path: Path,
) -> None:
    settings = DatabaseSettings(pool_min_size=1, pool_max_size=WORKERS, connect_timeout_seconds=0.2)
    async with database(tmp_path) as db, open_pool(db.url, settings) as pool:
        await migrate_rooms(pool)
        effects = Effects(pool)
        workers = [asyncio.create_task(effects.work()) for _ in range(WORKERS)]
        await kill_repeatedly(db, effects)
        effects.stop()
        await asyncio.gather(*workers)

        assert effects.interrupted
        states = {
            row["key"]: (row["state"], row["outcome"])
            for row in await fetch_rows(pool, "SELECT key, state, outcome FROM audit.effects")
        }
        assert states == {key: ("finished", outcome) for key, outcome in effects.known.items()}
        assert set(effects.made) == set(effects.known)

        entries = await fetch_rows(pool, "SELECT run_id, outcome FROM audit.entries ORDER BY id")
        trails: dict[str, list[str]] = {}
        for entry in entries:
            trails.setdefault(entry["run_id"], []).append(entry["outcome"])
        assert set(trails) == set(effects.known)
        for trail in trails.values():
            # Attempts that the database lost the end of, then one with its outcome, and nothing after it.
            assert trail[0] == "begun"
            assert all(outcome == "begun" for outcome, _ in pairwise(trail))
            assert trail[-1] == "finished"
