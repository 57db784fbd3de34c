"""Ask a person before a call has an effect."""

from collections.abc import Mapping

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import interrupt
from pydantic import BaseModel, ValidationError

from tools.approval import ApprovalDecision, ApprovalRequest, build_tool_decision_schema, get_approval_reason
from tools.execution import build_rejection


def approved(tools: Mapping[str, BaseTool], call: ToolCall, contact_id: str) -> ToolCall | ToolMessage:
    """The call as it may be made: at once where no person is needed, else after their decision.

    Stops the run with an ``interrupt`` the first time. The step then runs again from its beginning with the
    decision, also after a restart; nothing before this has an effect.

    Args:
        tools: The tools the model was offered.
        call: What it asked for.
        contact_id: Whom it is about.

    Returns:
        The call, with a person's arguments where they edited it, or what the model is told when they
        rejected it.
    """
    tool = tools.get(call["name"])
    reason = get_approval_reason(tool, call["args"]) if tool and _fits(tool, call) else None
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


def _fits(tool: BaseTool, call: ToolCall) -> bool:
    """Whether the tool would take the arguments; what it refuses the model must mend, not a person."""
    schema = tool.tool_call_schema
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return True
    try:
        schema.model_validate(call["args"])
    except ValidationError:
        return False
    return True
