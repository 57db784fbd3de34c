"""Which calls wait for a person before they have an effect, and what the person may decide."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

# Given a call's arguments, says why a person must approve it, or None when none need.
NeedsApproval: TypeAlias = Callable[[Mapping[str, Any]], str | None]

# A tool that gives money away waits for a person, marked or not.
_ALWAYS = ("discount", "refund")


class ApprovableTool(StructuredTool):
    """A tool some of whose calls wait for a person.

    The rule is a field and not metadata, as metadata is shown with every event of a run.
    """

    needs_approval: NeedsApproval = Field(exclude=True, repr=False)


def requires_approval(tool: BaseTool, when: NeedsApproval) -> BaseTool:
    """Mark a tool: calls for which ``when`` gives a reason wait for a person.

    Raises:
        TypeError: The tool was not made with LangChain's ``@tool``.
    """
    if not isinstance(tool, StructuredTool):
        raise TypeError(f"{tool.name!r} is no StructuredTool; make it with @tool")
    return ApprovableTool(**dict(tool), needs_approval=when)


def approval_reason(tool: BaseTool, arguments: Mapping[str, Any]) -> str | None:
    """Why this call needs a person's approval; ``None`` when it does not."""
    if isinstance(tool, ApprovableTool):
        return tool.needs_approval(arguments)
    if any(word in tool.name for word in _ALWAYS):
        return "it gives money away"
    return None


class ApprovalRequest(BaseModel):
    """What a person is asked, with all that is needed to decide."""

    type: Literal["tool_approval"] = "tool_approval"
    tool: str = Field(description="The tool that would be called")
    arguments: dict[str, Any] = Field(description="With what")
    reason: str = Field(description="Why it needs a person")
    contact_id: str = Field(description="Whom it is about")


class ApprovalDecision(BaseModel):
    """What a person decides."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["approve", "edit", "reject"]
    arguments: BaseModel | None = Field(None, description="In place of the model's, when decision is edit")
    reason: str = Field("", max_length=2_000, description="Why not, for the model, when decision is reject")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.decision == "edit" and self.arguments is None:
            raise ValueError("edit needs the arguments to use instead")
        if self.decision == "reject" and not self.reason.strip():
            raise ValueError("reject needs a reason: the model reads it")
        return self


def decision_schema(tool: BaseTool) -> type[ApprovalDecision]:
    """The decision on a call of this tool: edited arguments must fit the tool."""
    arguments = tool.tool_call_schema
    if not (isinstance(arguments, type) and issubclass(arguments, BaseModel)):
        return ApprovalDecision
    return decision_over(arguments)


def decision_over(arguments: type[BaseModel]) -> type[ApprovalDecision]:
    """The decision on what these arguments say: edited ones must fit them."""
    optional: Any = arguments | None
    field = Field(None, description="In place of the model's, when decision is edit")
    return create_model("ApprovalDecision", __base__=ApprovalDecision, arguments=(optional, field))
