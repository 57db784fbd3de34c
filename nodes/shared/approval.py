"""Human approval of tool calls and of answers."""

from collections.abc import Mapping
from typing import Literal

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import interrupt
from pydantic import BaseModel, Field, ValidationError

from core.customer_text import SendableText
from nodes.shared.citations import Citation, Grounding
from tools.approval import ApprovalDecision, ApprovalRequest, build_tool_decision_schema, get_approval_reason
from tools.execution import build_rejection


def request_approval(
    tools: Mapping[str, BaseTool], call: ToolCall, contact_id: str
) -> ToolCall | ToolMessage:
    """Return the call as it may be executed, after a person's decision where one is needed.

    Interrupts the run the first time. The node then runs again from its start with the decision, also after
    a restart, so nothing with an effect may come before this.

    Args:
        tools: The tools the model was offered.
        call: The tool call it made.
        contact_id: The contact the call is about.

    Returns:
        The call, with the person's arguments where they edited it, or the message that tells the model that
        they rejected it.
    """
    tool = tools.get(call["name"])
    reason = get_approval_reason(tool, call["args"]) if tool and _is_valid(tool, call) else None
    if tool is None or reason is None:
        return call
    request = ApprovalRequest(tool=call["name"], arguments=call["args"], reason=reason, contact_id=contact_id)
    decision: ApprovalDecision = interrupt(
        request.model_dump(), response_schema=build_tool_decision_schema(tool)
    )
    if decision.decision == "reject":
        return build_rejection(call, decision.reason)
    if decision.arguments is not None:
        return ToolCall(
            name=call["name"], args=decision.arguments.model_dump(), id=call["id"], type="tool_call"
        )
    return call


class AnswerApprovalRequest(BaseModel):
    """An answer that a person is asked to approve, with everything needed to decide."""

    type: Literal["answer_approval"] = "answer_approval"
    answer: str = Field(description="What the customer would read")
    unsupported: list[str] = Field(description="What it states that no source of the run holds")
    citations: list[Citation] = Field(description="The records and articles it rests on")
    reason: str = Field(description="Why a person must approve it")
    agent: str = Field(description="The agent that answered")
    contact_id: str = Field(description="The contact it is for")


class EditedAnswer(BaseModel):
    """What the customer reads instead."""

    text: SendableText = Field(min_length=1, max_length=20_000, description="The whole answer")


class AnswerDecision(ApprovalDecision):
    """What a person decides about an answer."""

    arguments: EditedAnswer | None = Field(None, description="Replace the answer when decision is edit")


def request_answer_approval(
    answer: str, grounding: Grounding, *, agent: str, contact_id: str
) -> AnswerDecision:
    """Return a person's decision about an answer.

    Interrupts the run the first time, like :func:`request_approval`.

    Args:
        answer: The answer.
        grounding: What it rests on, and what it states without a source.
        agent: The agent that answered.
        contact_id: The contact it is for.
    """
    request = AnswerApprovalRequest(
        answer=answer,
        unsupported=grounding["unsupported"],
        citations=grounding["citations"],
        reason=f"no source of the run holds: {', '.join(grounding['unsupported'])}",
        agent=agent,
        contact_id=contact_id,
    )
    decision: AnswerDecision = interrupt(request.model_dump(), response_schema=AnswerDecision)
    return decision


def _is_valid(tool: BaseTool, call: ToolCall) -> bool:
    """Whether the tool accepts the arguments; invalid ones go back to the model, not to a person."""
    schema = tool.tool_call_schema
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return True
    try:
        schema.model_validate(call["args"])
    except ValidationError:
        return False
    return True
