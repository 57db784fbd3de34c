"""A service that dies at any point of a run, and is asked again: one ticket, one message.

A run passes points: before and after each write of a checkpoint, each record of an effect and each call of
the CRM. Here it dies at every one of them in turn: from that point on, nothing it does comes through.
``benchmarks/chaos.py`` kills real processes.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from checkpoints.saver import GroupCommitSaver
from nodes.react.state import Reflection
from service.audit.idempotency import RecordedEffects, RequestKeys
from tests.support.audit import fetch_rows
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service
from tools.crm.client import SOURCE
from tools.crm.connection import CrmConnection

P = ParamSpec("P")
R = TypeVar("R")

TOLD = Reflection(success=True, reasoning="Both are done.", task_complete=True, final_answer="Reported.")
TICKET = ("create_engineering_ticket", {"title": "Export", "description": "Error 500", "severity": "low"})
REFUND = "Export fails; refund them."
# It waits for a person.
PROMISE = ("send_solution_to_customer", {"solution": "We will refund you."})
MESSAGE = ("send_solution_to_customer", {"solution": "We are at it."})


class Killed(Exception):
    """The process is no more."""


class Decided(ScriptedChatModel):
    """Says what the conversation so far asks for, so that a run may be gone on with anywhere."""

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        if any("ticket_id" in message.text for message in messages):
            return AIMessage(TOLD.model_dump_json())
        refunding = any(REFUND in message.text for message in messages)
        return calling("I report it and tell them.", TICKET, PROMISE if refunding else MESSAGE)


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
        (RequestKeys, "claim"),
    ):
        monkeypatch.setattr(owner, name, made.around(name, getattr(owner, name)))
    return made


@pytest.fixture(scope="module")
async def up(shared_database_url: str) -> AsyncIterator[RunningService]:
    """The service, with the development CRM in it."""
    async with running_service(shared_database_url, scripted_models(Decided())) as running:
        yield running


async def send_task(up: RunningService, key: str, task: str = "Export fails.") -> dict[str, Any]:
    body = {
        "input": {"task": task, "contact_id": CONTACT},
        "config": {"configurable": {"thread_id": key}},
    }
    answered = await up.http.post("/react/invoke", json=body, headers={"Idempotency-Key": key})
    found: dict[str, Any] = answered.json()
    return found


async def approved(up: RunningService, key: str) -> bool:
    """Whether there was something to approve, and it came through."""
    pending = (await up.http.get("/v1/approvals")).json()["approvals"]
    ids = [approval["id"] for approval in pending if approval["thread_id"] == key]
    decided = [await up.http.post(f"/v1/approvals/{each}", json={"decision": "approve"}) for each in ids]
    return any(answer.status_code == HTTPStatus.OK for answer in decided)


def restarted(up: RunningService, death: Death, key: str) -> None:
    """What a process remembers has gone with it."""
    assert death.came
    for forget in up.service.erasure.forget:
        forget(key)
    death.again_at(-1)


async def made(up: RunningService) -> tuple[int, int]:
    """Tickets and messages in the CRM's own tables."""
    query = """
        SELECT (SELECT count(*) FROM crm.engineering_tickets WHERE source = %s) AS tickets,
               (SELECT count(*) FROM crm.messages WHERE source = %s) AS messages
    """
    [counted] = await fetch_rows(up.service.pool, query, SOURCE, SOURCE)
    return counted["tickets"], counted["messages"]


async def test_one_ticket_and_one_message_wherever_the_service_dies(up: RunningService, death: Death) -> None:
    answer = await send_task(up, "undisturbed")
    assert answer["output"]["final_answer"] == "Reported."
    points = list(death.passed)
    assert Counter(points)["after _end"] == 2
    for at, point in enumerate(points):
        key = f"killed-{at}"
        tickets, messages = await made(up)
        death.again_at(at)
        assert "error" in await send_task(up, key), point
        restarted(up, death, key)
        answer = await send_task(up, key)
        assert answer["output"]["final_answer"] == "Reported.", point
        assert await made(up) == (tickets + 1, messages + 1), point
    left = await fetch_rows(up.service.pool, "SELECT FROM audit.effects WHERE state <> 'finished'")
    assert left == []


async def test_what_a_person_approved_is_done_once_wherever_the_service_dies(
    up: RunningService, death: Death
) -> None:
    await send_task(up, "approved", REFUND)
    death.again_at(-1)
    assert await approved(up, "approved")
    # Up to where the step is over; the steps after it are as those above.
    points = death.passed[: death.passed.index("after aput") + 1]
    for at, point in enumerate(points):
        key = f"approved-{at}"
        death.again_at(-1)
        tickets, messages = await made(up)
        assert (await send_task(up, key, REFUND))["output"]["interrupts"]
        death.again_at(at)
        assert not await approved(up, key), point
        restarted(up, death, key)
        # Asked again, where the decision was lost with the process.
        await approved(up, key)
        answer = await send_task(up, key, REFUND)
        assert answer["output"]["final_answer"] == "Reported.", point
        assert await made(up) == (tickets + 1, messages + 1), point
