"""What a caller of the sales graph notices."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast
from uuid import uuid4

import httpx
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from syrupy.assertion import SnapshotAssertion

from core.errors import InvalidRequest, ModelRefused, ModelUnavailable, NotFound
from core.models import ChatModels
from core.postgres import Pool
from core.settings import CrmSettings
from dev_crm.app import create_crm
from graphs.sales import SPEC
from graphs.spec import draw_mermaid
from nodes.deps import Deps
from nodes.hierarchical.plan import Decision, Decomposition, PlannedSubtask
from nodes.react.state import Reflection
from nodes.sales.stages import SALES_TEAM
from nodes.sales.state import DealReading, ObjectionReading, SalesInput
from nodes.shared.prompts import load_prompt
from tests.support.graphs import NO_AGENTS, compiled
from tests.support.scripted import Reply, ScriptedChatModel, calling, scripted_models
from tools.catalogue import crm_tools
from tools.crm.client import CrmClient, create_http_client
from tools.crm.models import Opportunity, OpportunityChanges, Qualification

Graph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]

LAURA = "550e8400-e29b-41d4-a716-446655440000"
RAFAEL = "d924702e-7216-42a7-9f90-db93a970ca03"
DEAL = "OPP-3001"
VALUE = 10_800.0
AWAY = ModelUnavailable("the model does not answer", details={"model": "scripted"})
REFUSED = ModelRefused("The provider blocked the prompt (SAFETY); rephrase the request")
PROPOSAL = "Enterprise with 100,000 contacts and the batch export, USD 10,800 a year."
DISCOUNTED = "One year in advance, 10 % off: USD 9,720."
KNOWN = Qualification(budget="12,000 dollars", authority="Laura and the CFO")


class Seller(ScriptedChatModel):
    """Returns scripted replies of the team, and the same words for every customer."""

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        if messages[0].text.startswith("You answer a customer about a deal"):
            return AIMessage("Thank you. Who decides with you?")
        return super()._next(messages)


class FaultyTransport(httpx.AsyncBaseTransport):
    """Connects to the development CRM; a test can make requests fail before or after the CRM handles them."""

    def __init__(self, pool: Pool, settings: CrmSettings) -> None:
        self._inner = httpx.ASGITransport(create_crm(pool, settings.api_key))
        self.before: Callable[[httpx.Request], Exception | None] = lambda _: None
        self.after: Callable[[httpx.Request], Exception | None] = lambda _: None
        self.keys: list[tuple[str, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if key := request.headers.get("Idempotency-Key"):
            self.keys.append((request.url.path.rpartition("/")[2], key))
        if fault := self.before(request):
            raise fault
        response = await self._inner.handle_async_request(request)
        if fault := self.after(request):
            raise fault
        return response

    def restore(self) -> None:
        self.before = self.after = lambda _: None


@dataclass(frozen=True, slots=True)
class House:
    """The graph, the scripted model and the CRM it works on."""

    graph: Graph
    model: ScriptedChatModel
    crm: CrmClient
    transport: FaultyTransport

    async def run(self, message: str = "", *replies: Reply, **more: str) -> dict[str, Any]:
        """Run with what the customer said; all replies must be used."""
        self.model.replies = list(replies)
        given = {"contact_id": LAURA, "opportunity_id": DEAL, "message": message, **more}
        return await self.sent(given)

    async def sent(self, given: Any) -> dict[str, Any]:
        given = SalesInput.model_validate(given) if isinstance(given, dict) else given
        output: dict[str, Any] = await self.graph.ainvoke(given, ON, durability=SPEC.durability)
        assert self.model.replies == []
        return output

    async def deal(self) -> Opportunity:
        return await self.crm.get_opportunity(LAURA, DEAL)

    async def set(self, **changes: Any) -> None:
        """Change the deal as a person would in the CRM."""
        made = OpportunityChanges.model_validate(changes)
        await self.crm.update_opportunity(LAURA, DEAL, made, key=str(uuid4()))


ON: RunnableConfig = {"configurable": {"thread_id": "deal"}, "recursion_limit": SPEC.recursion_limit}


@asynccontextmanager
async def house_over(pool: Pool, models: ChatModels, model: ScriptedChatModel) -> AsyncIterator[House]:
    settings = CrmSettings(max_attempts=1, rest_seconds=1e-6)
    transport = FaultyTransport(pool, settings)
    async with create_http_client(settings, "http://development-crm", transport=transport) as http:
        crm = CrmClient(http, settings, first_pause=0)
        deps = Deps(models=models, tools=crm_tools(crm), crm=crm, agents=NO_AGENTS)
        yield House(await compiled(SPEC, deps, pool), model, crm, transport)


@pytest.fixture
async def house(pool: Pool) -> AsyncIterator[House]:
    model = Seller()
    async with house_over(pool, scripted_models(model), model) as house:
        yield house


def worked(*stages: str, **brought: str) -> list[Reply]:
    """The manager sends these stages to work, one after the other, and is done."""
    parts = [
        PlannedSubtask(number=at, agent=stage, task=f"do {stage}", depends_on=[at - 1] if at > 1 else [])
        for at, stage in enumerate(stages, 1)
    ]
    done = Decision(why="Known.", done=True, success=True, result="Done.", subtasks=[])
    return [
        Decomposition(why="Due.", subtasks=parts),
        *(AIMessage(brought.get(stage) or f"{stage} brought this") for stage in stages),
        done,
    ]


def turn(*stages: str, **read: Any) -> list[Reply]:
    """The replies of a run: these stages work, and this is read out of it."""
    answers = " ".join(each.answer for each in read.get("objections", []))
    brought = {name: read.get(name, "") for name in ("solution", "proposal")}
    results = worked(*stages, **brought, objections=answers, negotiation=read.get("terms", ""))
    return [*results, DealReading(why="It was said.", **read)]


def statuses(output: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in output["stages"]}


async def negotiating(house: House) -> None:
    """The deal has a proposal that waits for the customer."""
    await house.set(
        stage="negotiation",
        qualification=KNOWN,
        needs=["Room for 100,000 contacts"],
        solution="Enterprise",
        proposal=PROPOSAL,
    )


# A deal, from its first stage to its last


async def test_a_deal_goes_through_its_stages_over_several_messages_to_a_close(house: House) -> None:
    output = await house.run(
        "We have 12,000 dollars a year; Laura and the CFO decide.",
        *turn("qualification", budget="12,000 dollars", authority="Laura and the CFO"),
    )
    assert (output["success"], output["stage"], output["closed"]) == (True, "needs", False)
    assert output["deal_value"] == VALUE
    deal = await house.deal()
    assert (deal.stage, deal.qualification.budget) == ("needs", "12,000 dollars")
    assert deal.qualification.timeline == "Before the renewal in March 2027"
    assert output["qualification"] == deal.qualification.model_dump()
    assert output["next_action"] == deal.next_action == "Go on with needs: no need is listed"

    output = await house.run(
        "We must hold 100,000 contacts.",
        *turn("needs", "solution", needs=["Room for 100,000 contacts"], solution="Enterprise"),
    )
    assert (output["stage"], (await house.deal()).stage) == ("proposal", "proposal")
    assert statuses(output) == {
        "qualification": "done",
        "needs": "done",
        "solution": "done",
        "objections": "skipped",
        "proposal": "open",
        "negotiation": "open",
        "close": "open",
    }

    worry = ObjectionReading(text="The migration may take weeks")
    output = await house.run("The migration may take weeks!", *turn("objections", objections=[worry]))
    assert (output["stage"], (await house.deal()).stage) == ("objections", "objections")
    assert statuses(output)["objections"] == "open"

    answer = ObjectionReading(text="the migration may take weeks", answer="It is immediate.")
    output = await house.run(
        "",
        *turn("objections", "proposal", objections=[answer], proposal=PROPOSAL, next_action="Send it."),
    )
    deal = await house.deal()
    assert (deal.stage, deal.proposal, deal.next_action) == ("negotiation", PROPOSAL, "Send it.")
    assert [(each.text, each.answer) for each in deal.objections] == [
        ("The migration may take weeks", "It is immediate.")
    ]
    assert statuses(output)["objections"] == "done"

    output = await house.run(
        "Thank you. We accept the proposal.",
        *turn("close", agreement="We accept the proposal.", next_action="Send the contract."),
    )
    deal = await house.deal()
    assert (deal.stage, deal.close_reason) == ("closed_won", "We accept the proposal.")
    assert (output["closed"], output["deal_value"], output["stage"]) == (True, VALUE, "closed_won")
    assert statuses(output)["negotiation"] == "skipped"
    assert statuses(output)["close"] == "done"
    assert [message.text for message in output["messages"] if message.type == "human"] == [
        "We have 12,000 dollars a year; Laura and the CFO decide.",
        "We must hold 100,000 contacts.",
        "The migration may take weeks!",
        "Thank you. We accept the proposal.",
    ]

    output = await house.run("One more thing.")
    assert (output["success"], output["reason"], output["closed"]) == (False, "already_closed", True)
    assert (await house.deal()).version == deal.version


async def test_the_team_sees_the_deal_the_contact_and_what_was_said_before(house: House) -> None:
    await house.run("We have 12,000 dollars.", *turn("qualification", budget="12,000 dollars"))
    house.model.prompts.clear()
    await house.run("And I decide.", *turn("qualification", authority="Laura"))
    decompose, worker, _, read = house.model.prompts
    assert "<customer>\nAnd I decide.\n</customer>" in decompose[1].text
    for seen in (decompose[2].text, worker[2].text):
        assert '"budget": "12,000 dollars"' in seen
        assert "Laura" in seen
        assert "customer: We have 12,000 dollars." in seen
    assert load_prompt("sales_guidance") in decompose[0].text
    assert "t1(qualification: do qualification): qualification brought this" in read[2].text


async def test_a_stage_whose_evidence_the_crm_holds_is_skipped_and_one_worked_on_again_is_repeated(
    house: House,
) -> None:
    await house.set(qualification=KNOWN)
    output = await house.run("We need room.", *turn("needs", needs=["Room"]))
    assert output["stage"] == "solution"
    assert (statuses(output)["qualification"], statuses(output)["needs"]) == ("skipped", "done")
    output = await house.run(
        "The budget was cut to 9,000 dollars, and we need an API.",
        *turn("qualification", "needs", budget="9,000 dollars", needs=["room", "An API"]),
    )
    assert (statuses(output)["qualification"], statuses(output)["needs"]) == ("repeated", "repeated")
    deal = await house.deal()
    assert (deal.qualification.budget, deal.needs) == ("9,000 dollars", ["Room", "An API"])
    assert output["stages"][0]["summary"] == "qualification brought this"


async def test_an_objection_moves_a_deal_back_but_missing_evidence_does_not(
    house: House,
) -> None:
    await house.set(stage="negotiation")
    await house.run("Hello.", *turn("close", next_action="Call."))
    assert (await house.deal()).stage == "negotiation"
    too_dear = ObjectionReading(text="Too dear")
    await house.run("It is too dear.", *turn("objections", objections=[too_dear]))
    assert (await house.deal()).stage == "objections"


async def test_a_deal_the_customer_declines_is_lost(house: House) -> None:
    output = await house.run(
        "We will not buy. Goodbye.", *turn("close", refusal="We will not buy.", not_ready=True)
    )
    assert (output["closed"], output["stage"], output["success"]) == (True, "closed_lost", True)
    assert (await house.deal()).close_reason == "We will not buy."
    assert statuses(output)["proposal"] == "skipped"
    assert await house.crm.list_follow_ups(LAURA) == []


# What the evidence does not carry


@pytest.mark.parametrize(
    ("message", "agreement"),
    [
        ("We like the proposal.", "We accept the proposal."),
        ("We do not accept the proposal.", "accept the proposal"),
        ("We accept if the CFO agrees.", "We accept"),
        ("Should we accept the proposal?", "accept the proposal"),
        ("", "We accept the proposal."),
        ("We accept the proposal.", "a"),
    ],
)
async def test_a_deal_is_not_won_without_the_customers_plain_agreement(
    house: House, message: str, agreement: str
) -> None:
    await negotiating(house)
    output = await house.run(message, *turn("close", agreement=agreement))
    assert (output["closed"], (await house.deal()).stage) == (False, "negotiation")
    assert output["next_action"] == "Ask the customer to say plainly whether they agree to the proposal"
    assert "not closed" in output["messages"][-1].text


async def test_a_deal_is_not_won_on_an_offer_the_customer_has_not_seen(house: House) -> None:
    await house.set(qualification=KNOWN, needs=["Room"], solution="Enterprise", stage="proposal")
    said = "We accept the proposal."
    output = await house.run(said, *turn("proposal", "close", proposal=PROPOSAL, agreement=said))
    assert (output["stage"], output["closed"]) == ("negotiation", False)
    output = await house.run(said, *turn("negotiation", "close", terms="Paid yearly.", agreement=said))
    assert (output["stage"], output["closed"]) == ("negotiation", False)
    output = await house.run(said, *turn("negotiation", "close", terms="Paid yearly.", agreement=said))
    assert (output["stage"], output["closed"]) == ("closed_won", True)


async def test_a_value_that_no_proposal_names_is_not_recorded(house: House) -> None:
    output = await house.run("Hello.", *turn("needs", value=99_000))
    assert (output["deal_value"], (await house.deal()).value) == (VALUE, VALUE)
    assert "The value 99,000.00 was not taken over" in output["messages"][-1].text
    grown = "Enterprise for USD 14,400 a year."
    output = await house.run("More.", *turn("proposal", value=14_400, proposal=grown))
    assert output["deal_value"] == (await house.deal()).value == 14_400


async def test_facts_without_evidence_are_not_recorded(house: House) -> None:
    before = await house.deal()
    invented = ObjectionReading(text="Competitors have pink buttons", answer="Ours are pinker.")
    output = await house.run(
        "Hello there.",
        *turn("qualification", budget="50,000 dollars", authority="Not known yet", needs=["Rockets"]),
    )
    assert output["reason"] == "no_progress"
    assert "nothing supports it: budget, authority, needs." in output["messages"][-1].text
    # Nobody worked on these stages.
    replies = [
        *worked("qualification"),
        DealReading(why="So.", solution="Enterprise", proposal=PROPOSAL, objections=[invented]),
    ]
    output = await house.run("Hello there.", *replies)
    assert "nothing supports it: solution, proposal, objections." in output["messages"][-1].text
    after = await house.deal()
    assert (after.stage, after.needs, after.solution, after.proposal) == ("qualification", [], None, None)
    assert after.qualification == before.qualification


async def test_a_run_that_brings_nothing_new_says_so(house: House) -> None:
    before = await house.deal()
    assert before.next_action
    output = await house.run("Hello.", *turn("needs", next_action=before.next_action))
    assert (output["success"], output["reason"]) == (False, "no_progress")
    assert (await house.deal()).version == before.version


# When the customer is not ready, or a person is needed


async def test_a_customer_who_is_not_ready_is_followed_up_on_the_day_they_named(house: House) -> None:
    day = (datetime.now(UTC) + timedelta(days=40)).date().isoformat()
    output = await house.run(
        "Call me later.", *turn("close", not_ready=True, follow_up_on=day, next_action="Call Laura.")
    )
    [planned] = await house.crm.list_follow_ups(LAURA)
    assert planned.due_at.startswith(f"{day}T09:00:00")
    assert (planned.opportunity_id, planned.note) == (DEAL, "Call Laura.")
    assert (output["success"], output["next_action"]) == (True, "Call Laura.")
    assert f"A follow-up is scheduled for {day}." in output["messages"][-1].text


@pytest.mark.parametrize("day", ["", "2020-01-01", "next spring", "9999-12-31"])
async def test_an_unready_customer_without_a_usable_day_is_followed_up_in_a_week(
    house: House, day: str
) -> None:
    await house.run("Call me later.", *turn("close", not_ready=True, follow_up_on=day))
    [planned] = await house.crm.list_follow_ups(LAURA)
    due = datetime.fromisoformat(planned.due_at) - datetime.now(UTC)
    assert timedelta(days=6) < due < timedelta(days=8)


async def test_a_deal_that_needs_a_person_is_handed_over(house: House) -> None:
    output = await house.run("Can our lawyer see it?", *turn("negotiation", needs_person="legal"))
    [handed] = await house.crm.list_handoffs(LAURA)
    assert (handed.team, handed.reason) == ("sales", "a legal question")
    assert DEAL in handed.summary
    assert "Handed over to sales: a legal question" in output["messages"][-1].text


# Money is given away by people


ASKS = "Give us ten percent and pay in advance."


async def asked_for_discount(house: House) -> dict[str, Any]:
    await negotiating(house)
    replies = turn(
        "negotiation", terms=DISCOUNTED, value=9_720, discount_percent=10, next_action="Send the terms."
    )
    return await house.run(ASKS, *replies)


async def test_a_discount_waits_for_a_person_and_is_recorded_when_approved(house: House) -> None:
    waiting = await asked_for_discount(house)
    [asked] = waiting["__interrupt__"]
    assert (waiting["stage"], waiting["deal_value"]) == ("negotiation", VALUE)
    assert asked.value == {
        "type": "tool_approval",
        "tool": "update_opportunity",
        "arguments": {
            "opportunity_id": DEAL,
            "proposal": "",
            "terms": DISCOUNTED,
            "value": 9_720.0,
            "discount_percent": 10.0,
        },
        "reason": "it takes 10 % off; the value falls from 10,800.00 to 9,720.00 USD; "
        "its words speak of money given away or of a commitment",
        "contact_id": LAURA,
    }
    deal = await house.deal()
    assert (deal.value, deal.terms, deal.next_action) == (
        VALUE,
        None,
        "Ask who decides and what is set aside for it",
    )
    output = await house.sent(Command(resume={"decision": "approve"}))
    deal = await house.deal()
    assert (deal.value, deal.terms, deal.next_action) == (9_720, DISCOUNTED, "Send the terms.")
    assert (output["success"], output["deal_value"]) == (True, 9_720)
    assert statuses(output)["negotiation"] == "done"
    said = "We accept the proposal with these terms."
    output = await house.run(said, *turn("close", agreement=said))
    assert (output["stage"], output["deal_value"]) == ("closed_won", 9_720)


async def test_a_discount_that_is_rejected_is_not_recorded_and_not_promised(house: House) -> None:
    await asked_for_discount(house)
    output = await house.sent(Command(resume={"decision": "reject", "reason": "Only for two years."}))
    assert (output["success"], output["reason"]) == (False, "terms_rejected")
    deal = await house.deal()
    assert (deal.value, deal.terms, deal.stage) == (VALUE, None, "negotiation")
    assert deal.next_action == "Answer the customer without the offer that was refused: Only for two years."


async def test_a_person_may_edit_the_offer_before_approving_it(house: House) -> None:
    await asked_for_discount(house)
    offer = {"proposal": "", "terms": "5 % off: USD 10,260.", "value": 10_260, "discount_percent": 5}
    output = await house.sent(Command(resume={"decision": "edit", "arguments": offer}))
    deal = await house.deal()
    assert (deal.value, deal.terms) == (10_260, "5 % off: USD 10,260.")
    assert output["next_action"] == "Tell the customer the offer as it was approved"


@pytest.mark.parametrize(
    "read",
    [
        {"terms": "Two months free."},
        {"terms": "All for USD 5,000."},
        {"proposal": "Enterprise for USD 8,000 a year.", "value": 8_000},
        {"terms": "Paid yearly.", "discount_percent": 1},
        {"terms": "We waive the set-up fee."},
    ],
)
async def test_every_kind_of_discount_waits_for_a_person(house: House, read: dict[str, Any]) -> None:
    await negotiating(house)
    waiting = await house.run("Please.", *turn("proposal", "negotiation", **read))
    assert waiting["__interrupt__"]
    deal = await house.deal()
    assert (deal.value, deal.terms, deal.proposal) == (VALUE, None, PROPOSAL)


async def test_terms_that_cost_nothing_need_no_approval(house: House) -> None:
    await negotiating(house)
    output = await house.run("Monthly?", *turn("negotiation", terms="Paid monthly, from March."))
    assert (await house.deal()).terms == "Paid monthly, from March."
    assert output["success"]


async def test_an_answer_that_no_stage_worked_out_leaves_the_objection_open(house: House) -> None:
    dear = ObjectionReading(text="Too dear", answer="It pays for itself in two months.")
    await house.run("It is too dear.", *worked("needs"), DealReading(why="So.", objections=[dear]))
    assert [(each.text, each.answer) for each in (await house.deal()).objections] == [("Too dear", None)]


async def test_a_rejected_offer_does_not_lose_what_else_was_found(house: House) -> None:
    waiting = await house.run(
        "Free months? We have 9,000 dollars.",
        *turn("qualification", "negotiation", budget="9,000 dollars", terms="Two months free."),
    )
    assert waiting["__interrupt__"]
    await house.sent(Command(resume={"decision": "reject", "reason": "No."}))
    deal = await house.deal()
    assert (deal.qualification.budget, deal.terms) == ("9,000 dollars", None)


# What fails


async def test_an_unavailable_model_leaves_the_deal_and_the_next_run_reads_the_words(
    house: House,
) -> None:
    before = await house.deal()
    output = await house.run("We have 12,000 dollars.", AWAY)
    assert (output["success"], output["reason"]) == (False, "model_unavailable")
    assert (output["stage"], output["deal_value"]) == ("qualification", VALUE)
    output = await house.run("Laura decides.", *worked("qualification"), AWAY)
    assert output["reason"] == "model_unavailable"
    assert (await house.deal()).version == before.version
    house.model.prompts.clear()
    output = await house.run("", *turn("qualification", budget="12,000 dollars", authority="Laura"))
    assert (
        "<customer>\nWe have 12,000 dollars.\nLaura decides.\n</customer>" in house.model.prompts[0][1].text
    )
    assert (output["success"], output["stage"]) == (True, "needs")
    house.model.prompts.clear()
    await house.run("", *turn("needs"))
    assert "nothing new" in house.model.prompts[0][1].text


async def test_words_that_the_provider_refuses_leave_the_deal_and_are_not_sent_again(house: House) -> None:
    before = await house.deal()
    output = await house.run("Something vile.", REFUSED)
    assert (output["success"], output["reason"]) == (False, "model_refused")
    assert "SAFETY" in output["messages"][-1].text
    output = await house.run("Hello.", *worked("needs"), REFUSED)
    assert output["reason"] == "model_refused"
    assert (await house.deal()).version == before.version
    house.model.prompts.clear()
    await house.run("Again.", *turn("needs"))
    assert "<customer>\nAgain.\n</customer>" in house.model.prompts[0][1].text


async def test_replies_that_cannot_be_read_leave_the_deal(house: House) -> None:
    before = await house.deal()
    for replies in (["no json", "nor this"], [*worked("needs"), '{"value": -1}', "no json"]):
        output = await house.run("More room.", *replies)
        assert (output["success"], output["reason"]) == (False, "model_reply_unreadable")
    assert (await house.deal()).version == before.version
    output = await house.run("", *worked("needs"), "no json", DealReading(why="So.", needs=["Room"]))
    assert output["success"]


async def test_stages_that_all_fail_leave_the_deal(house: House) -> None:
    before = await house.deal()
    plan, _, done = worked("needs")
    output = await house.run("Hello.", plan, AWAY, done)
    assert (output["success"], output["reason"]) == (False, "stages_failed")
    assert (await house.deal()).version == before.version


async def test_a_tool_that_fails_in_one_stage_keeps_the_results_of_the_others(house: House) -> None:
    house.transport.before = lambda request: (
        httpx.ConnectError("cut") if "knowledge-base" in request.url.path else None
    )
    search = ("search_knowledge_base", {"query": "limits"})
    more = Reflection(success=False, reasoning="It is away.", task_complete=False)
    tries: list[Reply] = []
    for number in range(3):
        tries += [calling(f"Try {number}.", search), more]
    plan, needs, _, done = worked("needs", "solution")
    output = await house.run("Room.", plan, needs, *tries, done, DealReading(why="So.", needs=["Room"]))
    assert (output["success"], (await house.deal()).needs) == (True, ["Room"])
    assert "search_knowledge_base" not in output["messages"][-1].text


async def test_an_unavailable_crm_at_the_start_ends_the_run_and_keeps_the_words(house: House) -> None:
    house.transport.before = lambda _: httpx.ConnectError("cut")
    output = await house.run("We have 12,000 dollars.")
    assert (output["success"], output["reason"], output["stage"]) == (False, "crm_unavailable", None)
    house.transport.restore()
    await house.run("", *turn("qualification", budget="12,000 dollars"))
    assert "We have 12,000 dollars." in house.model.prompts[0][1].text
    assert (await house.deal()).qualification.budget == "12,000 dollars"


async def test_changes_that_an_unavailable_crm_could_not_take_are_written_by_the_next_run(
    house: House,
) -> None:
    house.transport.before = writes_only(httpx.ConnectError("cut"))
    output = await house.run(
        "12,000 dollars; Laura decides; later.",
        *turn("qualification", budget="12,000 dollars", authority="Laura", not_ready=True),
    )
    assert (output["success"], output["reason"], output["stage"]) == (
        False,
        "crm_unavailable",
        "qualification",
    )
    assert output["unsaved"]["opportunity"]["qualification"] == {
        "budget": "12,000 dollars",
        "authority": "Laura",
    }
    assert output["unsaved"]["follow_up"]
    assert "Not saved yet: opportunity, follow_up" in output["messages"][-1].text
    again = await house.run("Room!")
    assert (again["reason"], again["unsaved"]) == ("crm_unavailable", output["unsaved"])
    house.transport.restore()
    output = await house.run("", *turn("needs", needs=["Room"]))
    deal = await house.deal()
    assert (deal.stage, deal.qualification.budget) == ("solution", "12,000 dollars")
    assert (output["success"], output["unsaved"]) == (True, None)
    assert len(await house.crm.list_follow_ups(LAURA)) == 1


async def test_a_write_whose_response_was_lost_is_repeated_and_done_once(house: House) -> None:
    house.transport.after = writes_only(httpx.ReadError("lost"), path="follow-ups")
    output = await house.run("Later.", *turn("close", not_ready=True))
    assert output["unsaved"]["follow_up"]
    house.transport.restore()
    await house.run("", *turn("close"))
    assert len(await house.crm.list_follow_ups(LAURA)) == 1
    first, second = (key for path, key in house.transport.keys if path == "follow-ups")
    assert first == second


async def test_a_run_that_crashed_after_its_write_is_resumed_and_writes_once(house: House) -> None:
    house.transport.after = writes_only(RuntimeError("the process died"), path="follow-ups")
    with pytest.raises(RuntimeError):
        await house.run("Later.", *turn("close", not_ready=True, needs=["Room"]))
    house.transport.restore()
    before = await house.deal()
    output = await house.sent(None)
    assert (output["success"], output["unsaved"]) == (True, None)
    assert (await house.deal()).version == before.version
    assert len(await house.crm.list_follow_ups(LAURA)) == 1
    assert len({key for path, key in house.transport.keys if path == DEAL}) == 1


async def test_a_stage_that_a_person_set_meanwhile_is_kept(house: House) -> None:
    house.transport.before = writes_only(httpx.ConnectError("cut"))
    await house.run("12,000.", *turn("qualification", budget="12,000", authority="Laura"))
    house.transport.restore()
    await house.set(stage="proposal")
    await house.run("", *turn("close"))
    deal = await house.deal()
    assert (deal.stage, deal.qualification.budget) == ("proposal", "12,000")


async def test_a_run_reports_that_the_deal_was_closed_meanwhile(house: House) -> None:
    async def close() -> None:
        house.model.before_token = None
        await house.set(stage="closed_lost", close_reason="They went away.")

    house.model.before_token = close
    output = await house.run("Room.", *turn("needs", needs=["Room"]))
    assert (output["success"], output["reason"]) == (False, "closed_meanwhile")
    assert (output["closed"], output["stage"], output["unsaved"]) == (True, "closed_lost", None)
    assert "closed" in output["messages"][-1].text
    assert (await house.deal()).needs == []


async def test_unknown_deals_and_those_of_others_are_not_found(house: House) -> None:
    for deal, contact in (
        ("OPP-3002", LAURA),
        (DEAL, RAFAEL),
        ("OPP-1", LAURA),
        ("../x y", LAURA),
        (DEAL, "x"),
    ):
        with pytest.raises(NotFound):
            await house.run("Hello.", opportunity_id=deal, contact_id=contact)
    assert house.model.prompts == []
    assert (await house.graph.aget_state(ON)).values["messages"] == []


async def test_a_thread_is_about_one_deal(house: House) -> None:
    await house.run("Hello.", *turn("needs"))
    with pytest.raises(InvalidRequest, match="about opportunity 'OPP-3001'"):
        await house.run("Hello.", opportunity_id="OPP-3007")
    assert (await house.run("Room.", *turn("needs", needs=["Room"])))["success"]


def writes_only(fault: Exception, path: str = "") -> Callable[[httpx.Request], Exception | None]:
    return lambda request: fault if request.method != "GET" and path in request.url.path else None


# What is seen


async def test_tokens_carry_the_name_of_the_step_that_makes_them(house: House) -> None:
    house.model.replies = turn("needs", needs=["Room"])
    given = {"contact_id": LAURA, "opportunity_id": DEAL, "message": "Room."}
    places: list[tuple[str, str]] = []
    async for part in house.graph.astream(given, ON, stream_mode="messages", subgraphs=True):
        namespace, (message, metadata) = cast("tuple[tuple[str, ...], tuple[Any, dict[str, Any]]]", part)
        place = (namespace[0].partition(":")[0] if namespace else "", metadata["langgraph_node"])
        if isinstance(message, AIMessageChunk) and place not in places:
            places.append(place)
    assert places == [
        ("work_stages", "decompose"),
        ("work_stages", "think"),
        ("work_stages", "decide"),
        ("", "read_results"),
        ("", "reply"),
    ]


def test_the_diagram(snapshot: SnapshotAssertion) -> None:
    assert draw_mermaid(SPEC) == snapshot


def test_the_team_has_one_sub_agent_per_stage_and_none_has_effects() -> None:
    assert [agent["name"] for agent in SALES_TEAM] == [
        "qualification",
        "needs",
        "solution",
        "objections",
        "proposal",
        "negotiation",
        "close",
    ]
    used = {tool for agent in SALES_TEAM for tool in agent.get("tools", [])}
    assert {name.partition("_")[0] for name in used} == {"get", "search", "check"}


async def test_the_prompts_as_the_model_sees_them(house: House, snapshot: SnapshotAssertion) -> None:
    await house.run("12,000 dollars.", *turn("qualification", "needs", budget="12,000 dollars"))
    today = datetime.now(UTC).date().isoformat()
    seen = [
        "\n\n".join(f"--- {message.type}\n{message.text}" for message in messages)
        for messages in house.model.prompts
    ]
    assert "\n\n==========\n\n".join(seen).replace(today, "TODAY") == snapshot
