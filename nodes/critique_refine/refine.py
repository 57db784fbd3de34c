"""The refiner: the next version, with everything applied that the judges said of the last one."""

from typing import Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from nodes.critique_refine.faults import attempted
from nodes.critique_refine.state import CritiqueRefineState
from nodes.critique_refine.transcript import feedback, with_draft
from nodes.critique_refine.writing import written
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.prompts import load_prompt

# Below the generator's: it mends a message, and does not write another one.
TEMPERATURE = 0.6

Next: TypeAlias = Command[Literal["criticise", "validate", "finish"]]


def refine(deps: Deps) -> Node[CritiqueRefineState, Next]:
    """Node: rewrite the version, and have the result judged. Where that fails, the best version stands."""
    system = load_prompt("critique_refine_refine")

    async def refine(state: CritiqueRefineState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        asked = written(
            deps.models,
            [*with_draft(state, system, context.locale), feedback(state["history"][-1])],
            temperature=TEMPERATURE,
            model=context.model,
        )
        draft, fault = await attempted(asked)
        if draft is None:
            return Command(goto="finish", update={"reason": fault})
        update = {"draft": draft, "cycles": state["cycles"] + 1}
        return Command(goto=["criticise", "validate"], update=update)

    return refine
