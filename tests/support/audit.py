"""Helpers for tests of effects and of the audit trail."""

from typing import Any
from uuid import uuid4

from core.context import Actor, act_as
from core.effects import Outcome
from core.postgres import Pool


class Outside:
    """Carries out an effect, or raises the next fault that the test lists."""

    def __init__(self, *faults: BaseException | None) -> None:
        self.calls = 0
        self._faults = list(faults)

    async def __call__(self) -> Outcome:
        self.calls += 1
        fault = self._faults.pop(0) if self._faults else None
        if fault:
            raise fault
        return {"id": f"made-{self.calls}"}


def act_on_new_thread(tenant: str = "default") -> Actor:
    """Let the test act as a run on a thread of its own."""
    actor = Actor(tenant=tenant, user="ana", thread_id=str(uuid4()), run_id=str(uuid4()))
    act_as(actor)
    return actor


async def fetch_rows(pool: Pool, query: str, *parameters: object) -> list[dict[str, Any]]:
    """Return the rows of a query."""
    async with pool.connection() as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def list_outcomes(pool: Pool, actor: Actor) -> list[tuple[str, str]]:
    """Return tool and outcome of the audit entries of the actor's thread, in order."""
    found = await fetch_rows(
        pool, "SELECT tool, outcome FROM audit.entries WHERE thread_id = %s ORDER BY id", actor.thread_id
    )
    return [(entry["tool"], entry["outcome"]) for entry in found]
