"""Which calls wait for a person."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from langchain_core.tools import BaseTool, tool

from tools.approval import assess_message_risk, get_approval_reason, require_approval
from tools.catalogue import crm_tools
from tools.crm.client import CrmClient

SEND = "send_solution_to_customer"
TICKET = {"title": "t", "description": "d"}


def named(name: str) -> BaseTool:
    @tool(name)
    async def made(amount: int) -> str:
        """Do it."""
        return str(amount)

    return made


def offered(**options: Any) -> Mapping[str, BaseTool]:
    return crm_tools(cast("CrmClient", None), **options)


def test_by_default_risky_messages_and_critical_tickets_wait() -> None:
    tools = offered()
    send, create = tools[SEND], tools["create_engineering_ticket"]
    assert get_approval_reason(send, {"solution": "We refund the invoice."})
    assert get_approval_reason(send, {"solution": "Use the batch export API by 10K."}) is None
    assert get_approval_reason(create, {**TICKET, "severity": "critical"})
    assert get_approval_reason(create, {**TICKET, "severity": "high"}) is None
    assert get_approval_reason(tools["check_service_status"], {}) is None


def test_the_risk_from_which_messages_wait_is_a_setting() -> None:
    message = {"solution": "It is mended by tomorrow."}
    waits = {
        level: bool(
            get_approval_reason(offered(approve_messages_from=level)["send_solution_to_customer"], message)
        )
        for level in ("low", "medium", "high", "never")
    }
    assert waits == {"low": True, "medium": True, "high": False, "never": False}


@pytest.mark.parametrize("name", ["apply_discount", "issue_refund"])
def test_what_gives_money_away_waits_though_nobody_marked_it(name: str) -> None:
    assert get_approval_reason(named(name), {"amount": 1})


def test_any_tool_can_be_marked_and_keeps_its_name_and_arguments() -> None:
    marked = require_approval(named("close_account"), lambda given: "large" if given["amount"] > 5 else None)
    assert (marked.name, list(marked.args), marked.metadata) == ("close_account", ["amount"], None)
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
