"""What the team brought, read into changes of the deal, as far as there is evidence for them."""

from typing import Any, Literal, TypeAlias

from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelError, ModelRefused
from core.texts import fence
from nodes.deps import Deps, Node, get_run_context
from nodes.hierarchical.manager import progress
from nodes.sales.background import deal_text
from nodes.sales.changes import (
    Offer,
    apply_changes,
    believed,
    closing,
    default_action,
    extract_offer,
    facts,
    find_concession,
    follow_up,
    hand_over,
    staged,
)
from nodes.sales.evidence import Evidence
from nodes.sales.stages import CLOSED
from nodes.sales.state import DealReading, OfferView, Reason, SalesState, Writes, short
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_structured
from tools.crm.models import Opportunity

# It is read, not invented.
TEMPERATURE = 0.1
_NO_WORDS = "The customer has said nothing new, so neither agreed nor declined."

Next: TypeAlias = Command[Literal["approve", "record", "finish"]]


def read_results(deps: Deps) -> Node[SalesState, Next]:
    """Node: what is new about the deal. An offer that gives money away goes to a person first.

    What cannot be read leaves the deal as it is, and the customer's words for the next run.
    """
    system = load_prompt("sales_read_results")

    async def read_results(state: SalesState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        try:
            reading = await ask_structured(
                deps.models,
                [
                    SystemMessage(add_locale(system, context.locale)),
                    HumanMessage(f"[The deal, on {state['today']}]\n{deal_text(state)}"),
                    progress(state["subtasks"]),
                    HumanMessage(_said(state["unheard"])),
                ],
                DealReading,
                temperature=TEMPERATURE,
                model=context.model,
            )
        except ModelRefused as refusal:
            return _end("model_refused", refusal.message, unheard="")
        except ModelError as error:
            return _end("model_unavailable", error.message)
        if reading is None:
            return _end("model_reply_unreadable", "What the sub-agents brought could not be read.")
        update = changes_of(state, reading)
        return Command(goto="approve" if update["offer"] else "record", update=update)

    return read_results


def changes_of(state: SalesState, reading: DealReading) -> dict[str, Any]:
    """The update: what is to be written, what waits for a person, and what was not believed."""
    before = Opportunity.model_validate(state["opportunity"])
    reading, unsupported = believed(before, reading, _material(state))
    offer = extract_offer(before, reading)
    closed, doubt = closing(before, reading, state["unheard"], offers_anew=offer is not None)
    if closed:
        offer = None
    why = find_concession(before, offer) if offer else None
    offered = offer.changes(before) if offer and not why else {}
    changes = staged(before, {**facts(before, reading), **closed, **offered})
    action = _action(reading, before, changes, doubt)
    writes = _writes(state, before, reading, changes, action=action)
    if writes["opportunity"] and why:
        # It may promise what is not approved yet.
        writes["opportunity"].pop("next_action", None)
    has_news = bool(changes or why or writes["follow_up"] or writes["hand_over"])
    return {
        "unsaved": writes,
        "offer": OfferView(offer=offer.model_dump(), reason=why, next_action=action)
        if offer and why
        else None,
        "notes": [*filter(None, (doubt, _unnamed(before, reading, offer), _unsupported(unsupported)))],
        "unheard": "",
        "reason": None if has_news else "no_progress",
    }


def _writes(
    state: SalesState, before: Opportunity, reading: DealReading, changes: dict[str, Any], *, action: str
) -> Writes:
    noted = {"next_action": action} if action != before.next_action else {}
    is_open, words = changes.get("stage") not in CLOSED, state["unheard"]
    return Writes(
        turn=state["turn"],
        stage_was=before.stage,
        opportunity={**changes, **noted} or None,
        follow_up=follow_up(before, reading, words, today=state["today"], action=action) if is_open else None,
        hand_over=hand_over(before, reading, action=action),
    )


def _action(reading: DealReading, before: Opportunity, changes: dict[str, Any], doubt: str) -> str:
    if doubt:
        return "Ask the customer to say plainly whether they agree to the proposal"
    return short(reading.next_action) or default_action(apply_changes(before, changes))


def _unnamed(before: Opportunity, reading: DealReading, offer: Offer | None) -> str:
    """Why a value that was read is not the deal's; empty when it is, or none was."""
    if reading.value is None or reading.value == (offer.value if offer else before.value):
        return ""
    return f"The value {reading.value:,.2f} was not taken over: neither proposal nor terms name it."


def _unsupported(names: list[str]) -> str:
    return f"Not taken over, as nothing supports it: {', '.join(names)}." if names else ""


def _material(state: SalesState) -> Evidence:
    spoken = [message.text for message in state["messages"] if message.type == "human"]
    brought = {each["agent"]: each["result"] for each in state["subtasks"] if each["status"] == "done"}
    return Evidence(said="\n".join([*spoken, state["unheard"]]), brought=brought)


def _said(words: str) -> str:
    said = f"What the customer said:\n{fence('customer', words)}" if words else _NO_WORDS
    return f"[Reading] {said}\nWhat is new about the deal?"


def _end(reason: Reason, note: str, **update: Any) -> Next:
    return Command(goto="finish", update={**update, "reason": reason, "notes": [note]})
