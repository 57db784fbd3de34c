"""Changes for the CRM: kept in the state until the CRM has them."""

from collections.abc import Mapping
from typing import Any

from langgraph.runtime import Runtime

from core.context import Context
from nodes.onboarding.state import OnboardingState, Write
from tools.crm.client import CrmClient
from tools.crm.models import CustomerProfile
from tools.execution import derive_idempotency_key


def queued(
    state: OnboardingState,
    runtime: Runtime[Context],
    kind: Any,
    body: Mapping[str, str | int],
) -> dict[str, Any]:
    """The update that puts a change in the outbox.

    Its key is made here, a step before it is used: a step that is repeated after a crash finds the same one.
    """
    info = runtime.execution_info
    thread_id = (info.thread_id if info else None) or "no-thread"
    key = derive_idempotency_key(thread_id, f"onboarding {kind}", str(state["writes"]))
    write = Write(kind=kind, key=key, body=dict(body))
    return {"outbox": [*state["outbox"], write], "writes": state["writes"] + 1}


async def deliver(crm: CrmClient, contact_id: str, write: Write) -> None:
    """Tell the CRM, once per key.

    Raises:
        CrmError: The CRM was not told, or its answer was lost.
    """
    body: dict[str, Any] = dict(write["body"])
    match write["kind"]:
        case "profile":
            await crm.update_profile(contact_id, CustomerProfile(**body), key=write["key"])
        case "follow_up":
            await crm.schedule_follow_up(contact_id, **body, key=write["key"])
        case "handoff":
            await crm.hand_over(contact_id, **body, key=write["key"])


def described(write: Write) -> str:
    """The change in words, for whoever must make it by hand."""
    body = "; ".join(f"{name}: {value}" for name, value in write["body"].items())
    return f"{write['kind']} ({body})"
