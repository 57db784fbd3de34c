"""What the models see: the conversation, the customer, and the current version as the model's own turn.

All prompts begin with the same messages in the same order, and what a cycle adds comes at the end, so that a
provider's prompt cache hits.
"""

import json
from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage

from nodes.critique_refine.state import CritiqueRefineState, Version
from nodes.shared.context import build_background_messages
from nodes.shared.conversation import select_history
from nodes.shared.prompts import build_system_prompt, load_prompt

# Earlier requests and the messages written for them: "shorter, please" is about the last one.
HISTORY_MESSAGES = 10
# The longest customer profile that is shown; tickets may be long.
CUSTOMER_CHARACTERS = 20_000


def build_request(state: CritiqueRefineState, system: str, locale: str | None) -> list[AnyMessage]:
    """Return the system prompt with the instruction, earlier turns, the request, the customer, background."""
    *earlier, request = state["messages"]
    return [
        SystemMessage(
            build_system_prompt(system, state["instruction"], locale=locale, time_zone=state["time_zone"])
        ),
        *select_history(earlier, HISTORY_MESSAGES, state["context"]),
        request,
        _build_customer_message(state),
        *build_background_messages(state["background"]),
    ]


def build_review_request(state: CritiqueRefineState, system: str, locale: str | None) -> list[AnyMessage]:
    """Return the request followed by the current version."""
    return [*build_request(state, system, locale), AIMessage(state["draft"])]


def build_feedback(version: Version) -> HumanMessage:
    """Return what the judges said of a version, for the refiner."""
    validation, scores = version["validation"], version["scores"]
    points = ", ".join(f"{name} {score}/25" for name, score in scores.items()) if scores else ""
    parts = [
        load_prompt("critique_refine_refine_question"),
        f"Score: {version['total']}/100 ({points})" if scores else "",
        _format_list("Must be fixed, or it cannot be sent", validation["issues"] if validation else []),
        _format_list("Weaknesses", version["weaknesses"]),
        _format_list("Improvements", version["improvements"]),
        _format_list("Strengths, to keep", version["strengths"]),
    ]
    return HumanMessage("\n\n".join(filter(None, parts)))


def _format_list(title: str, points: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *(f"- {point}" for point in points)]) if points else ""


def _build_customer_message(state: CritiqueRefineState) -> HumanMessage:
    profile = json.dumps(state["customer"], ensure_ascii=False, indent=1)
    excess = len(profile) - CUSTOMER_CHARACTERS
    if excess > 0:
        profile = f"{profile[:CUSTOMER_CHARACTERS]}… [{excess} more characters were cut]"
    # An escaped sign is the same text in JSON, and what customers wrote cannot close the fence.
    escaped = profile.replace("<", "\\u003c")
    return HumanMessage(load_prompt("critique_refine_customer").format(known=escaped))
