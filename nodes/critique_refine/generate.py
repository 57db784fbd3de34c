"""The first draft."""

from typing import Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from nodes.critique_refine.state import CritiqueRefineState
from nodes.critique_refine.transcript import request
from nodes.critique_refine.writing import written
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.prompts import load_prompt

# High: what is missing is found by the judges, what is never tried is not.
TEMPERATURE = 0.8

Next: TypeAlias = Command[Literal["criticise", "validate", "finish"]]


def generate(deps: Deps) -> Node[CritiqueRefineState, Next]:
    """Node: write the message. Nothing exists yet, so that a model's failure is the run's."""
    system = load_prompt("critique_refine_generate")

    async def generate(state: CritiqueRefineState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        draft = await written(
            deps.models,
            request(state, system, context.locale),
            temperature=TEMPERATURE,
            model=context.model,
        )
        if draft is None:
            return Command(goto="finish", update={"reason": "model_reply_unreadable"})
        return Command(goto=["criticise", "validate"], update={"draft": draft})

    return generate
