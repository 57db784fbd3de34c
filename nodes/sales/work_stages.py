"""The sub-agents work on the stages that are due."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from string import Template
from typing import Any, Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelError, ModelRefused
from core.texts import cut, fence, join_lines
from nodes.deps import Node
from nodes.hierarchical.endings import anything_done
from nodes.hierarchical.state import HierarchicalInput, HierarchicalOutput
from nodes.hierarchical.state import Reason as TeamReason
from nodes.sales.background import background
from nodes.sales.state import Reason, SalesState, StageView
from nodes.shared.prompts import load_prompt

# The manager with a sub-agent a stage, as a subgraph of the run that calls it.
Team: TypeAlias = Callable[[HierarchicalInput], Awaitable[HierarchicalOutput]]
Next: TypeAlias = Command[Literal["read_results", "finish"]]

_NOTHING_NEW = "The customer has said nothing new. See what the company can do for the deal by itself."
_SUMMARY_CHARACTERS = 500
_WORDS_CHARACTERS = 12_000
_REASONS: Mapping[TeamReason, Reason] = {
    "model_refused": "model_refused",
    "model_unavailable": "model_unavailable",
    "decision_unreadable": "model_reply_unreadable",
    "decomposition_invalid": "model_reply_unreadable",
}


def work_stages(team: Team) -> Node[SalesState, Next]:
    """Node: give the deal to the team. Where none of it was worked on, the deal stays as it is."""
    template = Template(load_prompt("sales_task"))

    async def work_stages(state: SalesState, *, runtime: Runtime[Context]) -> Next:  # noqa: ARG001
        given = HierarchicalInput(
            task=_task(template, state["unheard"], state["standing"]),
            contact_id=state["contact_id"],
            background=background(state),
        )
        try:
            worked = await team(given)
        except ModelRefused as refusal:
            return _end("model_refused", refusal.message)
        except ModelError as error:
            return _end("model_unavailable", error.message)
        if not anything_done(worked["subtasks"]):
            reason = _REASONS.get(worked["reason"], "stages_failed") if worked["reason"] else "stages_failed"
            return _end(reason, worked["result"], subtasks=worked["subtasks"])
        return Command(goto="read_results", update={"subtasks": worked["subtasks"]})

    return work_stages


def _task(template: Template, words: str, stages: Sequence[StageView]) -> str:
    lines = [
        f"- {stage['name']}: {stage['status']} ({cut(join_lines(stage['summary']), _SUMMARY_CHARACTERS)})"
        for stage in stages
    ]
    said = fence("customer", cut(words, _WORDS_CHARACTERS)) if words else _NOTHING_NEW
    return template.substitute(said=said, stages="\n".join(lines))


def _end(reason: Reason, note: str, **update: Any) -> Next:
    # Words the provider will not have read would be declined each time again.
    heard = {"unheard": ""} if reason == "model_refused" else {}
    return Command(goto="finish", update={**update, **heard, "reason": reason, "notes": [note]})
