"""The validator: whether the current version may be sent as it is."""

from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.critique_refine.checks import issues_in
from nodes.critique_refine.faults import attempted
from nodes.critique_refine.judgements import Verdict, validation_of
from nodes.critique_refine.state import CritiqueRefineState, Validation
from nodes.critique_refine.transcript import with_draft
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_structured

# As low as it goes without repeating itself: the same text should get the same verdict.
TEMPERATURE = 0.1


def validate(deps: Deps) -> Node[CritiqueRefineState, dict[str, Any]]:
    """Node: approve or reject the version.

    What code can tell is not asked of the model: a version that code rejects costs no call. A validator that
    fails says why, and the critic's points stay.
    """
    system = load_prompt("critique_refine_validate")
    question = load_prompt("critique_refine_validate_question")

    async def validate(state: CritiqueRefineState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        if issues := issues_in(state["draft"]):
            return {"validation": Validation(approved=False, issues=issues), "validation_fault": None}
        context = get_run_context(runtime)
        asked = ask_structured(
            deps.models,
            [*with_draft(state, system, context.locale), _measured(question, state["draft"])],
            Verdict,
            temperature=TEMPERATURE,
            role="chat",
            model=context.model,
        )
        verdict, fault = await attempted(asked)
        return {"validation": validation_of(verdict) if verdict else None, "validation_fault": fault}

    return validate


def _measured(question: str, draft: str) -> HumanMessage:
    """The question, with the length in numbers: models cannot count."""
    return HumanMessage(question.format(words=len(draft.split()), characters=len(draft)))
