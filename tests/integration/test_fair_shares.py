"""Tenants share the computing time of a process: whose work a callback of the event loop is."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

import pytest

from core.context import RUN_CONTEXT
from core.fair_loop import FairLoop
from service.cli import running as server
from tests.support.identity import WITH_KEYS, key_of
from tests.support.service import CONTACT, RunningService, running_service

Ts = TypeVarTuple("Ts")
# Of one run; most of them are LangGraph's.
FEWEST_CALLBACKS = 60


class NotingLoop(FairLoop):
    """Counts the callbacks of each tenant; the empty name is nobody's."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: Counter[str] = Counter()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self.callbacks[_name_tenant(context)] += 1
        return super().call_soon(callback, *args, context=context)


def _name_tenant(context: Context | None) -> str:
    run = RUN_CONTEXT.get() if context is None else context.get(RUN_CONTEXT)
    return run.tenant if run else ""


async def test_what_a_request_costs_the_event_loop_counts_as_its_tenants(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FairLoop", NotingLoop)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, NotingLoop)
        async with running_service(database_url, auth=WITH_KEYS) as running:
            await running.service.warming
            keys = {tenant: await key_of(running.service, tenant) for tenant in ("a", "b")}
            loop.callbacks.clear()
            await ask(running, keys["a"])
            assert loop.callbacks["a"] > FEWEST_CALLBACKS
            assert not loop.callbacks["b"]
            # The rest is the client, what comes before authentication, and what belongs to the process.
            assert loop.callbacks["a"] > loop.callbacks[""]
            await asyncio.gather(*(ask(running, key) for key in keys.values()))
            assert loop.callbacks["b"] > FEWEST_CALLBACKS

    # In the loop that serves, which is not that of tests.
    await asyncio.to_thread(server.run_in_loop, scenario())


async def ask(running: RunningService, key: dict[str, str]) -> None:
    body = {"input": {"task": "What is the status of my tickets?", "contact_id": CONTACT}}
    answered = await running.http.post("/react/invoke", json=body, headers=key)
    assert answered.status_code == 200, answered.text
