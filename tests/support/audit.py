"""The ledger as a test looks into it."""

from typing import Any
from uuid import uuid4

from core.context import Actor, act_as
from core.effects import Outcome
from core.postgres import Pool


class Outside:
    """The other side of an effect: does what it is asked, or what a test says instead."""

    def __init__(self, *faults: BaseException | None) -> None:
        self.asked = 0
        self._faults = list(faults)

    async def __call__(self) -> Outcome:
        self.asked += 1
        fault = self._faults.pop(0) if self._faults else None
        if fault:
            raise fault
        return {"id": f"made-{self.asked}"}


def acting_on_a_thread(tenant: str = "default") -> Actor:
    """Have this test act in a run on a thread of its own."""
    actor = Actor(tenant=tenant, user="ana", thread_id=str(uuid4()), run_id=str(uuid4()))
    act_as(actor)
    return actor


async def rows(pool: Pool, query: str, *parameters: object) -> list[dict[str, Any]]:
    """What a query finds."""
    async with pool.connection() as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def entries(pool: Pool, actor: Actor) -> list[tuple[str, str]]:
    """What the audit says was done on the actor's thread, in order."""
    found = await rows(
        pool, "SELECT tool, outcome FROM audit.entries WHERE thread_id = %s ORDER BY id", actor.thread_id
    )
    return [(entry["tool"], entry["outcome"]) for entry in found]
