"""What the models see: the conversation, the customer, and the version in question as the model's own turn.

Generator and refiner are shown the same beginning in the same order, and so are the judges, so that what a
cycle adds comes at the end.
"""

import json
from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage

from nodes.critique_refine.state import CritiqueRefineState, Version
from nodes.shared.context import build_background_messages
from nodes.shared.conversation import select_history
from nodes.shared.prompts import add_locale, load_prompt

# Earlier requests on the thread and the messages that were written: "shorter, please" is about the last one.
HISTORY_MESSAGES = 10
# Of what the CRM knows: tickets may be long.
CUSTOMER_CHARACTERS = 20_000


def request(state: CritiqueRefineState, system: str, locale: str | None) -> list[AnyMessage]:
    """System prompt with the instruction, earlier turns, the request, the customer, what else is known."""
    *earlier, asked = state["messages"]
    guided = f"{add_locale(system, locale)}\n\n{state['guidance']}".strip()
    return [
        SystemMessage(guided),
        *select_history(earlier, HISTORY_MESSAGES, state["context"]),
        asked,
        _customer(state),
        *build_background_messages(state["background"]),
    ]


def with_draft(state: CritiqueRefineState, system: str, locale: str | None) -> list[AnyMessage]:
    """The request and the current version."""
    return [*request(state, system, locale), AIMessage(state["draft"])]


def feedback(judged: Version) -> HumanMessage:
    """What the judges said of a version, for the refiner."""
    validation, scores = judged["validation"], judged["scores"]
    points = ", ".join(f"{name} {given}/25" for name, given in scores.items()) if scores else ""
    parts = [
        load_prompt("critique_refine_refine_question"),
        f"Score: {judged['total']}/100 ({points})" if scores else "",
        _listed("Must be mended, or it cannot be sent", validation["issues"] if validation else []),
        _listed("Weaknesses", judged["weaknesses"]),
        _listed("Improvements", judged["improvements"]),
        _listed("Strengths, to keep", judged["strengths"]),
    ]
    return HumanMessage("\n\n".join(filter(None, parts)))


def _listed(title: str, points: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *(f"- {point}" for point in points)]) if points else ""


def _customer(state: CritiqueRefineState) -> HumanMessage:
    known = json.dumps(state["customer"], ensure_ascii=False, indent=1)
    cut = len(known) - CUSTOMER_CHARACTERS
    if cut > 0:
        known = f"{known[:CUSTOMER_CHARACTERS]}… [{cut} more characters were cut]"
    # In JSON an escaped sign is the same text, and what customers wrote cannot close the fence.
    return HumanMessage(load_prompt("critique_refine_customer").format(known=known.replace("<", "\\u003c")))
