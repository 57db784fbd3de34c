"""The critic: how good the current version is, and what would make it better."""

from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from nodes.critique_refine.faults import attempted
from nodes.critique_refine.judgements import Review, critique_of
from nodes.critique_refine.state import CritiqueRefineState
from nodes.critique_refine.transcript import with_draft
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_structured

# Low: versions are compared by their points.
TEMPERATURE = 0.2


def criticise(deps: Deps) -> Node[CritiqueRefineState, dict[str, Any]]:
    """Node: score the version. A critic that fails says why, and the validator's verdict stays."""
    system = load_prompt("critique_refine_criticise")
    question = HumanMessage(load_prompt("critique_refine_criticise_question"))

    async def criticise(state: CritiqueRefineState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        context = get_run_context(runtime)
        asked = ask_structured(
            deps.models,
            [*with_draft(state, system, context.locale), question],
            Review,
            temperature=TEMPERATURE,
            model=context.model,
        )
        review, fault = await attempted(asked)
        return {"critique": critique_of(review) if review else None, "critique_fault": fault}

    return criticise
