"""Human approval of tool calls."""

from collections.abc import Mapping

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import interrupt
from pydantic import BaseModel, ValidationError

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
