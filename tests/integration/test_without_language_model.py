"""What each pattern answers where no language model is configured: no plan, vote or score is made up."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from graphs.registry import REGISTRY
from tests.support.service import CONTACT, RunningService, running_service

DEAL = {"contact_id": CONTACT, "opportunity_id": "OPP-3001"}


@pytest.fixture(scope="module")
async def running(shared_database_url: str) -> AsyncIterator[RunningService]:
    async with running_service(shared_database_url) as opened:
        yield opened


async def invoke(running: RunningService, graph: str, body: dict[str, Any], **rest: Any) -> dict[str, Any]:
    response = await running.http.post(f"/{graph}/invoke", json={"input": body, **rest})
    assert response.status_code == 200, response.text
    output: dict[str, Any] = response.json()["output"]
    return output


@pytest.mark.parametrize(
    ("graph", "nothing"),
    [
        ("planning_monitor", {"completed": False, "plan": None, "results": [], "judgements": []}),
        ("critique_refine", {"success": False, "output": "", "critique": None, "history": []}),
        ("hierarchical", {"success": False, "subtasks": [], "rounds": 0}),
    ],
)
async def test_a_pattern_that_plans_or_judges_ends_with_needs_model(
    running: RunningService, graph: str, nothing: dict[str, Any]
) -> None:
    output = await invoke(running, graph, dict(REGISTRY[graph].example))
    assert output["reason"] == "needs_model"
    assert {name: output[name] for name in nothing} == nothing
    assert "no language model is configured" in output["messages"][-1]["content"]


async def test_a_consensus_asks_a_person_because_the_voters_abstain(running: RunningService) -> None:
    question = {"question": "Delete all data of every customer tonight?", "contact_id": CONTACT}
    output = await invoke(running, "consensus", question)
    assert (output["reason"], output["decision"]) == ("needs_model", "")
    [pending] = output["interrupts"]
    assert "no language model is configured" in pending["value"]["reason"]
    assert not any(vote["valid"] for vote in output["votes"])

    answer = {"choice": "reject", "comment": "No."}
    thread = {"configurable": {"thread_id": output["thread_id"]}}
    decided = await invoke(running, "consensus", {"resume": answer}, config=thread)
    assert (decided["decision"], decided["reason"]) == ("reject", "decided_by_human")


async def test_a_sale_hands_what_the_customer_said_to_a_person_once(running: RunningService) -> None:
    words = "We agree to the proposal. Please send the contract."
    before = (await running.crm(f"/contacts/{CONTACT}/opportunities/{DEAL['opportunity_id']}"))["stage"]
    output = await invoke(running, "sales", {**DEAL, "message": words})
    assert (output["success"], output["reason"], output["stage"]) == (False, "needs_model", before)
    [handoff] = await handoffs_with(running, words)
    assert handoff["team"] == "sales"

    # A run without new words has nothing to hand over.
    again = {"configurable": {"thread_id": output["thread_id"]}}
    assert (await invoke(running, "sales", DEAL, config=again))["reason"] == "needs_model"
    assert len(await handoffs_with(running, words)) == 1


@pytest.mark.parametrize(
    ("message", "team", "words"),
    [
        ("I want to file a formal complaint.", "success", "customer success team"),
        ("Quero registrar uma reclamação.", "success", "equipe de sucesso do cliente"),
        ("Quiero poner una queja.", "success", "equipo de éxito del cliente"),
        ("I think someone hacked our account.", "legal", "privacy and security team"),
        ("Vazaram nossos dados!", "legal", "equipe de privacidade e segurança"),
        ("Los voy a demandar.", "success", "equipo de éxito del cliente"),
    ],
)
async def test_a_complaint_a_breach_and_a_threat_are_handed_over_in_every_language(
    running: RunningService, message: str, team: str, words: str
) -> None:
    body = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": message}
    answer = (await running.http.post("/v1/messages", json=body)).json()
    assert (answer["path"], answer["handoff"]["recorded"]) == ("handoff", True)
    assert words in answer["response"]
    [handoff] = await handoffs_with(running, message)
    assert handoff["team"] == team


async def handoffs_with(running: RunningService, words: str) -> list[dict[str, Any]]:
    handoffs = (await running.crm(f"/contacts/{CONTACT}/handoffs"))["handoffs"]
    return [handoff for handoff in handoffs if words in handoff["summary"]]


@pytest.mark.parametrize(
    ("message", "kind", "source"),
    [
        ("I get Error 500 when I export my contacts. How do I resolve it?", "article", "kb-large-exports"),
        ("A exportação de 80 mil contatos dá Erro 500. O que eu faço?", "article", "kb-exportacoes-grandes"),
        ("Where is my order ORD-7001?", "order", "ORD-7001"),
        ("Was our invoice of March paid?", "invoice", "INV-2026-0311"),
        ("How many of my contacts are used up?", "contact", "get_contact"),
        ("Is the WhatsApp channel down right now?", "status", "check_service_status"),
        ("Where is my order ORD-9999?", "", ""),
    ],
)
async def test_an_answer_cites_the_record_or_article_that_it_quotes(
    running: RunningService, message: str, kind: str, source: str
) -> None:
    body = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": message}
    answer = (await running.http.post("/v1/messages", json=body)).json()
    cited = [(each["kind"], each["id"]) for each in answer["metadata"]["citations"]]
    assert cited == ([(kind, source)] if kind else [])
    assert answer["metadata"]["unsupported"] == []
    assert "kb-" not in answer["response"]


async def test_a_request_that_nothing_answers_is_handed_over_before_the_steps_run_out(
    running: RunningService,
) -> None:
    output = await invoke(running, "react", {"task": "The zorblax quux fails.", "contact_id": CONTACT})
    tools = [entry["action"]["tool"] for entry in output["trace"] if entry["action"]]
    assert len(tools) == len(set(tools)), "a tool was called twice"
    assert output["iterations"] < 10
    assert "limit of steps" not in output["final_answer"]
