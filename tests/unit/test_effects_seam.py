"""Every write to the CRM is recorded, whichever tool or graph makes it."""

from collections.abc import Awaitable, Callable
from inspect import signature
from typing import Any

import httpx
import pytest

from core.customer_text import CustomerText
from core.effects import Arguments, Outcome
from core.settings import CrmSettings
from tools.crm.client import CrmClient
from tools.crm.models import CustomerProfile, OpportunityChanges

WRITES: dict[str, dict[str, Any]] = {
    "create_engineering_ticket": {
        "title": "t",
        "description": "d",
        "severity": "low",
        "key": "k",
    },
    "send_message": {"text": CustomerText("t"), "key": "k"},
    "update_profile": {"changes": CustomerProfile(), "key": "k"},
    "update_opportunity": {"opportunity_id": "o", "changes": OpportunityChanges(), "key": "k"},
    "schedule_follow_up": {"due_at": "2026-01-01T09:00:00Z", "subject": "s", "note": "n", "key": "k"},
    "hand_over": {"team": "support", "reason": "r", "summary": "s", "key": "k"},
}


class Recorded(Exception):
    """The record was asked for, before anything was sent."""


class Recorder:
    """Records, and has nothing done."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    async def run_once(
        self, key: str, action: str, arguments: Arguments, do: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        self.calls.append((key, action))
        raise Recorded


def test_the_list_of_writing_methods_is_complete() -> None:
    takes_key = {
        name
        for name, method in vars(CrmClient).items()
        if callable(method) and "key" in signature(method).parameters
    }
    assert takes_key == set(WRITES)


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_is_recorded_before_it_is_sent(name: str) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"sent {request.url}")

    recorder = Recorder()
    async with httpx.AsyncClient(base_url="http://crm", transport=httpx.MockTransport(refuse)) as http:
        crm = CrmClient(http, CrmSettings(), effects=recorder)
        with pytest.raises(Recorded):
            await getattr(crm, name)("contact-1", **WRITES[name])
    assert recorder.calls == [("k", name)]
