"""Which tool calls a person must approve before they take effect, and what the person may decide."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

# Takes a call's arguments and returns why a person must approve it, or None when nobody needs to.
ApprovalRule: TypeAlias = Callable[[Mapping[str, Any]], str | None]


class ApprovableTool(StructuredTool):
    """A tool some of whose calls a person must approve.

    The rule is a field rather than an entry of ``metadata``, because every event of a run carries metadata.
    """

    approval_rule: ApprovalRule = Field(exclude=True, repr=False)


def require_approval(tool: BaseTool, rule: ApprovalRule) -> BaseTool:
    """Return the tool with a rule: calls for which ``rule`` returns a reason wait for a person.

    Raises:
        TypeError: The tool was not made with LangChain's ``@tool``.
    """
    if not isinstance(tool, StructuredTool):
        raise TypeError(f"{tool.name!r} is not a StructuredTool; create it with @tool")
    return ApprovableTool(**dict(tool), approval_rule=rule)


def get_approval_reason(tool: BaseTool, arguments: Mapping[str, Any]) -> str | None:
    """Return why a person must approve this call; ``None`` when nobody needs to."""
    return tool.approval_rule(arguments) if isinstance(tool, ApprovableTool) else None


class ApprovalRequest(BaseModel):
    """What a person is asked to approve, with everything needed to decide."""

    type: Literal["tool_approval"] = "tool_approval"
    tool: str = Field(description="The tool to be called")
    arguments: dict[str, Any] = Field(description="The arguments of the call")
    reason: str = Field(description="Why a person must approve the call")
    contact_id: str = Field(description="The contact the call is about")


class ApprovalDecision(BaseModel):
    """What a person decides."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["approve", "edit", "reject"]
    arguments: BaseModel | None = Field(
        None, description="Replace the model's arguments when decision is edit"
    )
    reason: str = Field(
        "",
        max_length=2_000,
        description="Why it is rejected, when decision is reject: for the model, or whoever takes over",
    )

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if self.decision == "edit" and self.arguments is None:
            raise ValueError("edit needs the arguments to use instead")
        if self.decision == "reject" and not self.reason.strip():
            raise ValueError("reject needs a reason: the model, or whoever takes over, reads it")
        return self


def build_tool_decision_schema(tool: BaseTool) -> type[ApprovalDecision]:
    """Return the decision schema for a call of this tool; edited arguments must fit the tool."""
    arguments = tool.tool_call_schema
    if not (isinstance(arguments, type) and issubclass(arguments, BaseModel)):
        return ApprovalDecision
    return build_decision_schema(arguments)


def build_decision_schema(arguments: type[BaseModel]) -> type[ApprovalDecision]:
    """Return the decision schema whose edited arguments must fit ``arguments``."""
    optional: Any = arguments | None
    field = Field(None, description=ApprovalDecision.model_fields["arguments"].description)
    return create_model("ApprovalDecision", __base__=ApprovalDecision, arguments=(optional, field))


MessageRisk: TypeAlias = Literal["low", "medium", "high"]
MESSAGE_RISKS: tuple[MessageRisk, ...] = ("low", "medium", "high")

# Commits the company: money, law, the end of a contract, the loss of data. In English and Portuguese, the
# languages the company writes in.
_HIGH_RISK = re.compile(
    r"""\b(
        refund\w* | reimburs\w* | compensat\w* | discount\w* | waive\w* | free\s+of\s+charge | goodwill
      | reembols\w* | estorn\w* | ressarc\w* | indeniza\w* | descont\w* | gratuit\w* | cortesia
      | lawsuit | legal\s+action | liab(le|ility) | breach
      | processo\s+judicial | a[cç][aã]o\s+judicial | multa
      | (cancel|terminat|delet)\w*\s+(your|the)\s+(account|contract|subscription|data)
      | (cancel|rescis|exclu|apag)\w*\s+(d?[ao]s?|sua|seu)\s+(conta|contrato|assinatura|dados)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
# Promises something: a date, a guarantee, a page elsewhere.
_MEDIUM_RISK = re.compile(
    r"""\b(
        guarantee\w* | promis\w* | garant\w* | promet\w*
      | by\s+(tomorrow|monday|tuesday|wednesday|thursday|friday|tonight) | within\s+\d+\s+(hours?|days?)
      | at[eé]\s+(amanh[aã]|segunda|ter[cç]a|quarta|quinta|sexta) | em\s+\d+\s+(horas?|dias?)
      | https?://\S+
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_LONG_MESSAGE_CHARACTERS = 4_000


def assess_message_risk(text: str) -> MessageRisk:
    """Return ``high`` if it commits the company, ``medium`` if it promises or is long, else ``low``."""
    if _HIGH_RISK.search(text):
        return "high"
    if _MEDIUM_RISK.search(text) or len(text) > _LONG_MESSAGE_CHARACTERS:
        return "medium"
    return "low"
