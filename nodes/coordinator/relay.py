"""Conversations that a person has taken over: messages pass between the customer and the person."""

from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.customer_text import CustomerText
from core.memory import Scope
from nodes.coordinator.state import CoordinatorInput, CoordinatorState, reset_turn
from nodes.deps import Deps, get_run_context
from nodes.shared.conversation import mark_person
from nodes.shared.memory import MemoryUse, PendingMessage, current_time, record_messages
from tools.execution import derive_idempotency_key


def choose_entry(
    state: CoordinatorInput,  # noqa: ARG001 - LangGraph gives it
    *,
    runtime: Runtime[Context],
) -> Literal["prepare", "relay"]:
    """Return the first node of a message: ``relay`` where a person has taken the conversation over."""
    context = get_run_context(runtime)
    return "relay" if context.held_by or context.is_from_person else "prepare"


class Relay:
    """The node of messages in which no agent speaks.

    Args:
        deps: The CRM, which sends a person's replies, and memory.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def relay(self, state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        """Node: keep the customer's message for the person, or send the person's reply to the customer.

        Memory keeps both; what it does not take stays in the outbox for the next message.

        Raises:
            CrmError: The CRM did not send the reply.
            TextRefused: The reply may not be sent to a customer.
        """
        context, info = get_run_context(runtime), runtime.execution_info
        session_id = (info.thread_id if info else None) or state.get("session_id", "")
        turn = state.get("message_id") or str(uuid4())
        message: AnyMessage = HumanMessage(state["message"], id=turn)
        if context.is_from_person:
            text = CustomerText(state["message"])
            key = derive_idempotency_key(session_id, turn, "send_message")
            await self._deps.crm.send_message(state["contact_id"], text=text, key=key, author=context.user)
            message = mark_person(AIMessage(text.text, id=turn), context.user)
        outbox = list(state.get("outbox", []))
        said = PendingMessage(
            id=turn,
            role="human" if context.is_from_person else "customer",
            text=state["message"],
            at=current_time(),
            channel_id=state.get("channel_id", ""),
        )
        scope = Scope(context.tenant, state["contact_id"])
        outbox.append(said)
        fault = await record_messages(self._deps.memory, scope, session_id, outbox)
        return {
            **reset_turn(),
            "messages": [message],
            "turn": turn,
            "session_id": session_id,
            "unclear_message": "",
            "outbox": outbox if fault else [],
            "memory": MemoryUse(
                available=False, degraded=[f"record: {fault}"] if fault else [], recorded=not fault
            ),
            "path": "person",
            "success": True,
            "response": message.text if context.is_from_person else "",
        }
