"""A service that dies at any point of a run, and is asked again: one ticket, one message.

A run passes points: before and after each write of a checkpoint, each record of an effect and each call of
the CRM. Here it dies at every one of them in turn: from that point on, nothing it does comes through.
``benchmarks/chaos.py`` kills real processes.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from checkpoints.saver import GroupCommitSaver
from ledger.effects import RecordedEffects
from ledger.requests import Requests
from nodes.react.state import Reflection
from tests.support.ledger import rows
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service
from tools.crm_client import SOURCE
from tools.crm_connection import CrmConnection

P = ParamSpec("P")
R = TypeVar("R")

TOLD = Reflection(success=True, reasoning="Both are done.", task_complete=True, final_answer="Reported.")
TICKET = ("create_engineering_ticket", {"title": "Export", "description": "Error 500", "severity": "low"})
MESSAGE = ("send_solution_to_customer", {"solution": "We are at it."})


class Killed(Exception):
    """The process is no more."""


class Decided(ScriptedChatModel):
    """Says what the conversation so far asks for, so that a run may be gone on with anywhere."""

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        if any("ticket_id" in message.text for message in messages):
            return AIMessage(TOLD.model_dump_json())
        return calling("I report it and tell them.", TICKET, MESSAGE)


class Death:
    """Comes at one of the points a run passes."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.comes_at = -1
        self.came = False

    def again_at(self, point: int) -> None:
        self.passed, self.comes_at, self.came = [], point, False

    def around(self, name: str, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            self._pass(f"before {name}")
            result = await function(*args, **kwargs)
            self._pass(f"after {name}")
            return result

        return wrapped

    def _pass(self, name: str) -> None:
        if self.came:
            raise Killed
        self.passed.append(name)
        if len(self.passed) - 1 == self.comes_at:
            self.came = True
            raise Killed(name)


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch) -> Death:
    """Waits at every write there is."""
    made = Death()
    for owner, name in (
        (GroupCommitSaver, "aput"),
        (GroupCommitSaver, "aput_writes"),
        (RecordedEffects, "_begin"),
        (RecordedEffects, "_end"),
        (CrmConnection, "_attempt"),
        (Requests, "claim"),
    ):
        monkeypatch.setattr(owner, name, made.around(name, getattr(owner, name)))
    return made


@pytest.fixture
async def up(database_url: str) -> AsyncIterator[RunningService]:
    """The service, with the development CRM in it."""
    async with running_service(database_url, scripted_models(Decided())) as running:
        yield running


async def asked(up: RunningService, key: str) -> dict[str, Any]:
    body = {
        "input": {"task": "Export fails.", "contact_id": CONTACT},
        "config": {"configurable": {"thread_id": key}},
    }
    answered = await up.http.post("/react/invoke", json=body, headers={"Idempotency-Key": key})
    found: dict[str, Any] = answered.json()
    return found


async def test_one_ticket_and_one_message_wherever_the_service_dies(up: RunningService, death: Death) -> None:
    answer = await asked(up, "undisturbed")
    assert answer["output"]["final_answer"] == "Reported."
    points = list(death.passed)
    assert Counter(points)["after _end"] == 2
    for at, point in enumerate(points):
        key = f"killed {at}".replace(" ", "-")
        death.again_at(at)
        assert "error" in await asked(up, key), point
        assert death.came
        # What a process remembers goes with it.
        for forget in up.service.erasure.forget:
            forget(key)
        death.again_at(-1)
        answer = await asked(up, key)
        assert "output" in answer, (at, points[: at + 1], answer)
        assert answer["output"]["final_answer"] == "Reported.", point
    made = await rows(
        up.service.pool,
        """SELECT thread_id, action, state, outcome ->> 'id' AS id FROM ledger.effects
           ORDER BY thread_id, action""",
    )
    done = Counter((effect["action"], effect["state"]) for effect in made)
    runs = len(points) + 1
    assert done == {("create_engineering_ticket", "finished"): runs, ("send_message", "finished"): runs}
    # The CRM's own tables say so too.
    for table in ("engineering_tickets", "messages"):
        query = f"SELECT count(*) AS n FROM crm.{table} WHERE source = %s"
        [counted] = await rows(up.service.pool, query, SOURCE)
        assert counted["n"] == runs
