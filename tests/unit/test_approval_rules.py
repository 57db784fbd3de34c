"""Which tool calls wait for a person."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from langchain_core.tools import BaseTool, tool

from tools.approval import assess_message_risk, get_approval_reason, require_approval
from tools.catalogue import crm_tools
from tools.crm.client import CrmClient

SEND = "send_solution_to_customer"
TICKET = {"title": "t", "description": "d"}


def create_tool(name: str) -> BaseTool:
    @tool(name)
    async def act(amount: int) -> str:
        """Do it."""
        return str(amount)

    return act


def create_tools(**options: Any) -> Mapping[str, BaseTool]:
    return crm_tools(cast("CrmClient", None), **options)


def test_by_default_risky_messages_and_critical_tickets_wait() -> None:
    tools = create_tools()
    send, create = tools[SEND], tools["create_engineering_ticket"]
    assert get_approval_reason(send, {"solution": "We refund the invoice."})
    assert get_approval_reason(send, {"solution": "Use the batch export API by 10K."}) is None
    assert get_approval_reason(create, {**TICKET, "severity": "critical"})
    assert get_approval_reason(create, {**TICKET, "severity": "high"}) is None
    assert get_approval_reason(tools["check_service_status"], {}) is None


def test_the_risk_from_which_messages_wait_is_a_setting() -> None:
    message = {"solution": "It is fixed by tomorrow."}
    waits = {
        level: bool(get_approval_reason(create_tools(approve_messages_from=level)[SEND], message))
        for level in ("low", "medium", "high", "never")
    }
    assert waits == {"low": True, "medium": True, "high": False, "never": False}


@pytest.mark.parametrize("name", ["get_refund_policy", "list_discounts"])
def test_a_tool_is_not_stopped_because_of_its_name(name: str) -> None:
    assert get_approval_reason(create_tool(name), {"amount": 1}) is None


def test_any_tool_can_require_approval_and_keeps_its_name_and_arguments() -> None:
    marked = require_approval(
        create_tool("issue_refund"), lambda arguments: "large" if arguments["amount"] > 5 else None
    )
    assert (marked.name, list(marked.args), marked.metadata) == ("issue_refund", ["amount"], None)
    assert get_approval_reason(marked, {"amount": 6}) == "large"
    assert get_approval_reason(marked, {"amount": 5}) is None


@pytest.mark.parametrize(
    ("text", "risk"),
    [
        ("Open Settings > Exports and choose CSV.", "low"),
        ("Abra Configurações e escolha CSV.", "low"),
        ("Reset your password on the login page.", "low"),
        ("It will be fixed by Friday.", "medium"),
        ("Resolvemos em 2 dias.", "medium"),
        ("See https://example.com/page.", "medium"),
        ("x" * 4_001, "medium"),
        ("You get a 20% discount.", "high"),
        ("Faremos o estorno da fatura.", "high"),
        ("We can cancel your contract today.", "high"),
        ("Podemos cancelar sua assinatura.", "high"),
    ],
)
def test_the_risk_of_a_message_in_both_languages(text: str, risk: str) -> None:
    assert assess_message_risk(text) == risk
